"""What a model is made of: typed configurations, the released ones by name, and the official JSON form.

Field names are the official keys wherever such a key exists, so that one vocabulary serves both.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

JsonDict = dict[str, Any]
Gelu = Literal["exact", "tanh"]
CLIP_LOGIT_SCALE = math.log(1.0 / 0.07)
# What the released loader takes where a checkpoint of another kind of model brings no bias.
START_WITHOUT_BIAS = {"logit_bias": -10.0, "logit_scale": math.log(10.0)}


def _check_sizes(block: str, config: object, names: tuple[str, ...]) -> None:
    for name in names:
        if getattr(config, name) < 1:
            raise ValueError(f"{block}.{name} is {getattr(config, name)}: it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """The image tower."""

    layers: int = 12
    """Blocks."""
    width: int = 768
    """Size of a token vector."""
    head_width: int = 64
    """Size of an attention head; the number of heads is width // head_width."""
    mlp_ratio: float = 4.0
    """Hidden size of a block's MLP, as a multiple of the width (rounded down)."""
    patch_size: int = 16
    """Pixels of a patch's side."""
    image_size: int | tuple[int, int] = 224
    """Pixels: one side of a square, or (height, width)."""
    ls_init_value: float | None = None
    """Start value of the layer scales; none are used if None."""
    no_ln_pre: bool = False
    """Leave out the norm before the blocks."""
    norm_eps: float = 1e-5
    """Epsilon of every layer norm."""
    embed_unc: bool = False
    """Whether a [UNC] token gives log variances; without it images are points."""
    unc_seen: bool = True
    """Let other tokens attend to [UNC], as in all released weights; if not it attends to them and moves no mean."""
    init_unc_bias: float = -10.0
    """Start value of the log variances."""
    final_norm: Literal["twice", "once"] = "twice"
    """Norms between the blocks and the mean: "twice" on [CLS] as in all released weights, or "once" as on [UNC]."""
    pool_type: Literal["tok", "map"] = "tok"
    """What the mean is read from: [CLS] ("tok", all released weights), or a learned query's attention to the patches
    ("map", SigLIP's tower, which has no [CLS])."""
    gelu: Gelu = "exact"
    """Form of the GELU, unless the model says quick_gelu."""

    def __post_init__(self) -> None:
        _check_sizes("vision", self, ("layers", "width", "head_width", "patch_size"))
        if self.width % self.heads:
            raise ValueError(f"vision.width {self.width} is not a multiple of its {self.heads} heads")
        if min(self.grid) < 1:
            raise ValueError(f"vision.image_size {self.image_size} is smaller than a patch of {self.patch_size}")

    @property
    def heads(self) -> int:
        """Attention heads."""
        return max(1, self.width // self.head_width)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        size = self.image_size
        height, width = (size, size) if isinstance(size, int) else size
        return height // self.patch_size, width // self.patch_size

    @property
    def num_patches(self) -> int:
        """Patches of an image."""
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The text tower."""

    context_length: int = 64
    """Tokens of a caption; shorter captions are padded to it."""
    vocab_size: int = 32100
    """Rows of the token table."""
    width: int = 768
    """Size of a token vector."""
    heads: int = 12
    """Attention heads."""
    layers: int = 12
    """Blocks."""
    mlp_ratio: float = 4.0
    """Hidden size of a block's MLP, as a multiple of the width (rounded down)."""
    ls_init_value: float | None = None
    """Start value of the layer scales; none are used if None."""
    norm_eps: float = 1e-5
    """Epsilon of every layer norm."""
    proj_bias: bool = True
    """Whether the mean's head has a bias."""
    embed_unc: bool = True
    """Whether the model has a [UNC] token and log variances; without it texts are points."""
    unc_seen: bool = True
    """Let other tokens attend to [UNC], as in all released weights; if not it attends to them and moves no mean, and
    the log-variance head must read it (log_var_source)."""
    init_unc_bias: float = -10.0
    """Start value of the log variances."""
    log_var_source: Literal["mean", "unc"] = "mean"
    """What the log-variance head reads: the projected [CLS] "mean" as in all released weights, or the [UNC] output."""
    hf_tokenizer_name: str | None = None
    """Hub name of the tokenizer this model was trained with; recorded, not used by the model."""
    embed_cls: bool = True
    """Whether the mean is read from a [CLS] after the tokens, as in all released weights."""
    no_causal_mask: bool = True
    """Let every token attend to every other, as in all released weights; CLIP's attend to earlier ones only."""
    pool_type: Literal["argmax", "last", "eos"] = "argmax"
    """Without [CLS], the token that the mean is read from: that of the largest id (CLIP's end of text), the last of the
    context (SigLIP), or the first `eos_id`."""
    eos_id: int = 2
    """The id that pool_type "eos" looks for."""
    gelu: Gelu = "exact"
    """Form of the GELU, unless the model says quick_gelu."""
    tokenizer_clean: str | None = None
    """That tokenizer's cleaning mode ("canonicalize" for SigLIP's); recorded, not used by the model."""

    def __post_init__(self) -> None:
        _check_sizes("text", self, ("layers", "width", "heads", "context_length", "vocab_size"))
        if self.width % self.heads:
            raise ValueError(f"text.width {self.width} is not a multiple of text.heads {self.heads}")
        if self.embed_unc and not self.unc_seen and self.log_var_source == "mean":
            raise ValueError('text.unc_seen is False: log_var_source must be "unc", or nothing would read [UNC]')


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Both towers and the similarity's start values."""

    embed_dim: int
    """Dimension of the embeddings."""
    vision: VisionConfig
    """The image tower."""
    text: TextConfig
    """The text tower."""
    quick_gelu: bool = False
    """Use x * sigmoid(1.702 x) instead of the exact GELU, in both towers."""
    init_logit_scale: float = CLIP_LOGIT_SCALE
    """Start value of the *log* of the similarity scale."""
    init_logit_bias: float | None = None
    """Start value of the similarity's bias; None makes a model without one, which can be loaded but not trained."""

    def __post_init__(self) -> None:
        if self.text.embed_unc and self.text.log_var_source == "mean" and self.text.width != self.embed_dim:
            raise ValueError(
                f"text.width {self.text.width} differs from embed_dim {self.embed_dim}: a log-variance head that reads "
                'the mean needs them equal; log_var_source="unc" does not'
            )
        # The official format cannot tell 0 from absent.
        if self.init_logit_bias == 0.0:
            raise ValueError(
                "init_logit_bias is 0, which the official format reads as none: take None or another value"
            )
        if self.init_logit_scale == 0.0:
            raise ValueError("init_logit_scale is 0, which the official format reads as no scale at all")


# ---------------------------------------------------------------------------------------------------------------------
# The official JSON form. Each table: keys that are read by name, keys that have no effect, and values that are refused.

_VISION_IGNORED = ("attn_pooler_", "timm_", "final_ln_after_pool")
_TEXT_IGNORED = (
    "attn_pooler_",
    "hf_model_",
    "hf_pooler_type",
    "hf_proj_type",
    "pad_id",
    "final_ln_after_pool",
)
_SUPPORTED_ONLY: dict[str, dict[str, tuple[Any, ...]]] = {
    "vision_cfg": {
        "pool_type": ("tok", "map"),
        "pos_embed_type": ("learnable",),
        "attentional_pool": (False,),
        "output_tokens": (False,),
        "patch_dropout": (0, 0.0),
    },
    "text_cfg": {
        "attentional_pool": (False,),
        "output_tokens": (False,),
    },
}


def _norm_eps(block: str, value: object) -> float | None:
    """The epsilon of official `norm_kwargs`, None where nothing is set."""
    if value is None or value == {}:
        return None
    if not isinstance(value, Mapping) or set(value) != {"eps"}:
        raise ValueError(f"{block}.norm_kwargs is {value!r}: only {{'eps': number}} is supported")
    return float(value["eps"])


def _gelu(block: str, value: object) -> Gelu:
    """The form of the GELU that official `act_kwargs` name."""
    if value is None or value in ({}, {"approximate": "none"}):
        return "exact"
    if value != {"approximate": "tanh"}:
        raise ValueError(f"{block}.act_kwargs is {value!r}: only {{'approximate': 'tanh'}} is supported")
    return "tanh"


def _read_block(block: str, given: Mapping[str, Any], known: set[str], ignored: tuple[str, ...]) -> JsonDict:
    """Keyword arguments of a tower's configuration from its official block."""
    read: JsonDict = {}
    for key, value in given.items():
        supported = _SUPPORTED_ONLY[block].get(key)
        if supported is not None and value not in supported:
            raise ValueError(f"{block}.{key} is {value!r}: only {' or '.join(map(repr, supported))} is supported")
        if key == "act_kwargs":
            read["gelu"] = _gelu(block, value)
        elif key == "norm_kwargs":
            eps = _norm_eps(block, value)
            if eps is not None:
                read["norm_eps"] = eps
        elif key == "tokenizer_kwargs" and block == "text_cfg":
            if value and set(value) != {"clean"}:
                raise ValueError(f"text_cfg.tokenizer_kwargs is {value!r}: only {{'clean': name}} is supported")
            read["tokenizer_clean"] = value["clean"] if value else None
        elif key in known:
            read[key] = tuple(value) if isinstance(value, list) else value
        elif supported is None and not key.startswith(ignored):
            raise ValueError(f"{block}.{key} is not a known setting{_nearest(key, known)}")
    return read


def _nearest(key: str, known: set[str]) -> str:
    close = difflib.get_close_matches(key, sorted(known), 1)
    return f": did you mean {close[0]!r}?" if close else ""


def from_official_json(given: Mapping[str, Any]) -> ModelConfig:
    """The configuration that an official `config.json` or model file describes.

    Raises:
        ValueError: a setting is unknown, or the official code does not support it either (SPEC section 1).
    """
    known = {"embed_dim", "quick_gelu", "init_logit_scale", "init_logit_bias", "output_dict", "vision_cfg", "text_cfg"}
    for key in given:
        if key not in known:
            raise ValueError(f"{key} is not a known setting{_nearest(key, known)}")
    for key in ("embed_dim", "vision_cfg", "text_cfg"):
        if key not in given:
            raise ValueError(f"{key} is missing from the model's configuration")
    vision_fields = {field.name for field in fields(VisionConfig)} - {"norm_eps", "gelu"}
    text_fields = {field.name for field in fields(TextConfig)} - {"norm_eps", "gelu", "tokenizer_clean"}
    text_block = dict(given["text_cfg"])
    if text_block.get("embed_cls", True):
        text_block.pop("pool_type", None)  # the released files carry one that [CLS] leaves without effect
    scale = given.get("init_logit_scale")
    return ModelConfig(
        embed_dim=given["embed_dim"],
        vision=VisionConfig(**_read_block("vision_cfg", given["vision_cfg"], vision_fields, _VISION_IGNORED)),
        text=TextConfig(**_read_block("text_cfg", text_block, text_fields, _TEXT_IGNORED)),
        quick_gelu=given.get("quick_gelu", False),
        init_logit_scale=CLIP_LOGIT_SCALE if scale is None else scale,
        init_logit_bias=given.get("init_logit_bias") or None,
    )


def _changed(config: VisionConfig | TextConfig) -> JsonDict:
    """A tower's settings that differ from the defaults, as an official block."""
    changed: JsonDict = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if value == field.default:
            continue
        if field.name == "norm_eps":
            changed["norm_kwargs"] = {"eps": value}
        elif field.name == "gelu":
            changed["act_kwargs"] = {"approximate": value}
        elif field.name == "tokenizer_clean":
            changed["tokenizer_kwargs"] = {"clean": value}
        else:
            changed[field.name] = list(value) if isinstance(value, tuple) else value
    return dict(sorted(changed.items()))


def to_official_json(config: ModelConfig) -> JsonDict:
    """The official form of `config`: settings that differ from the defaults, keys sorted.

    `final_norm`, `unc_seen` and `log_var_source` have no official key, and "map" is no official pool_type; where they
    leave the released form they are written under their own names, which the official code refuses instead of
    misreading.
    """
    written: JsonDict = {
        "embed_dim": config.embed_dim,
        "vision_cfg": _changed(config.vision),
        "text_cfg": _changed(config.text),
    }
    for field in fields(config):
        if field.name in {"quick_gelu", "init_logit_scale", "init_logit_bias"}:
            value = getattr(config, field.name)
            if value != field.default:
                written[field.name] = value
    return dict(sorted(written.items()))


# ---------------------------------------------------------------------------------------------------------------------
# Configurations by name

_SIGLIP_CLEAN = "canonicalize"
_BASE = ModelConfig(
    embed_dim=768,
    vision=VisionConfig(embed_unc=True),
    text=TextConfig(norm_eps=1e-6, hf_tokenizer_name="timm/ViT-B-16-SigLIP", tokenizer_clean=_SIGLIP_CLEAN),
    init_logit_bias=-10.0,
)
_DEMO_SCALE = 14.29
_DEMO_LOG_VAR = -6.0
_DEMO_DIM = 128

ARCHITECTURES: dict[str, ModelConfig] = {
    "ViT-B-16": _BASE,
    "ViT-B-16-long": replace(_BASE, text=replace(_BASE.text, context_length=256)),
    # The text depth is that of the SigLIP model of this size.
    "ViT-L-16": replace(
        _BASE,
        embed_dim=1024,
        vision=VisionConfig(embed_unc=True, image_size=256, layers=24, width=1024),
        text=replace(_BASE.text, width=1024, heads=16, layers=24, hf_tokenizer_name="timm/ViT-L-16-SigLIP-256"),
    ),
    "ViT-SO400M-14": replace(
        _BASE,
        embed_dim=1152,
        vision=VisionConfig(embed_unc=True, patch_size=14, layers=27, width=1152, head_width=72, mlp_ratio=3.7362),
        text=replace(
            _BASE.text,
            width=1152,
            heads=16,
            layers=27,
            mlp_ratio=3.7362,
            hf_tokenizer_name="timm/ViT-SO400M-14-SigLIP",
        ),
    ),
    "ViT-H-14": ModelConfig(
        embed_dim=1024,
        quick_gelu=True,
        vision=VisionConfig(embed_unc=True, patch_size=14, layers=32, width=1280, head_width=80),
        text=TextConfig(context_length=77, vocab_size=49408, width=1024, heads=16, layers=24),
        init_logit_bias=-10.0,
    ),
    # Small enough for two cores; the vocabulary is that of the shards' own tokenizer. The bias starts where the
    # variances' offset in the similarity is cancelled.
    "demo": ModelConfig(
        embed_dim=_DEMO_DIM,
        vision=VisionConfig(
            embed_unc=True,
            patch_size=6,
            image_size=36,
            width=128,
            head_width=32,
            layers=4,
            init_unc_bias=_DEMO_LOG_VAR,
            final_norm="once",
        ),
        text=TextConfig(
            context_length=20,
            vocab_size=2000,
            width=128,
            heads=4,
            layers=2,
            init_unc_bias=_DEMO_LOG_VAR,
            log_var_source="unc",
        ),
        init_logit_scale=math.log(_DEMO_SCALE),
        init_logit_bias=-10.0 + _DEMO_SCALE * _DEMO_DIM * math.exp(_DEMO_LOG_VAR),
    ),
}
