"""Settings of the model and of which of its parameters train.

Where the official JSON has a key for a setting, the field has the same name (`prolip.models.official_json`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from prolip.errors import UserError, check, check_at_least

JsonDict = dict[str, Any]
Gelu = Literal["exact", "tanh"]
Precision = Literal["fp32", "bf16", "fp16"]
"""Type of the towers' matrix products: fp32, or lower by autocast. Weights, heads and losses are always fp32."""
Device = Literal["auto", "cpu", "cuda"]
"""Where a model runs; `auto`: on a GPU if torch can use one."""
ResizeForm = Literal["official", "corrected"]
Resize = Literal["off"] | ResizeForm
PositionMode = Literal["bilinear", "bicubic"]
"""Interpolates positions for an image's own grid."""
Means = Literal["fixed", "residual"]
"""Those of the frozen model, or with a learned residual."""
Kernel = Literal["softmax", "nearest"]
"""How a variance is counted from queries (`prolip.models.counted`)."""
CLIP_LOGIT_SCALE = math.log(1.0 / 0.07)
START_WITHOUT_BIAS = {"logit_bias": -10.0, "logit_scale": math.log(10.0)}
"""The released loader's initial values for a checkpoint without a bias, such as CLIP's."""
MAX_INIT_UNC_BIAS = 80.0
"""Of an initial log variance, either sign; its exponential summed over an embedding stays finite and above 0."""


def _check_tower(block: str, tower: VisionConfig | TextConfig) -> None:
    check(
        tower.mlp_ratio * tower.width >= 1, f"{block}mlp_ratio", "must give at least one hidden unit", tower.mlp_ratio
    )
    check(0 <= tower.norm_eps < math.inf, f"{block}norm_eps", "must be finite and at least 0", tower.norm_eps)
    check(
        abs(tower.init_unc_bias) <= MAX_INIT_UNC_BIAS,
        f"{block}init_unc_bias",
        f"must be between -{MAX_INIT_UNC_BIAS:g} and {MAX_INIT_UNC_BIAS:g}",
        tower.init_unc_bias,
    )


def _check_sizes(block: str, config: object, *names: str) -> None:
    check_at_least(1, **{f"{block}{name}": getattr(config, name) for name in names})


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """The image tower."""

    layers: int = 12
    """Number of transformer blocks."""
    width: int = 768
    """Dimension of a token."""
    head_width: int = 64
    """Dimension of an attention head; there are width // head_width heads."""
    mlp_ratio: float = 4.0
    """Hidden size of the MLP, as a multiple of the width, rounded down."""
    patch_size: int = 16
    """Side of a patch in pixels."""
    image_size: int | tuple[int, int] = 224
    """Side of a square image in pixels, or (height, width)."""
    ls_init_value: float | None = None
    """Initial value of layer scales; None for a model without them."""
    no_ln_pre: bool = False
    """Leave out the layer norm before the blocks."""
    norm_eps: float = 1e-5
    """Epsilon of every layer norm."""
    embed_unc: bool = False
    """Predict log variances from a [UNC] token. Without it images are points."""
    unc_seen: bool = True
    """Other tokens attend to [UNC], as in all released models. If False, means do not depend on it."""
    init_unc_bias: float = -10.0
    """Initial log variance."""
    final_norm: Literal["twice", "once"] = "twice"
    """How often the last layer norm is applied to [CLS]: "twice", as in all released models, or "once", as to [UNC].
    Without [UNC] it is always once."""
    pool_type: Literal["tok", "map"] = "tok"
    """Source of the mean: [CLS] ("tok", all released models), or attention of a learned query to the patches ("map",
    SigLIP's tower, which has no [CLS])."""
    gelu: Gelu = "exact"
    """Form of the GELU, unless quick_gelu is set."""
    image_seq_len: int | None = None
    """Maximum number of patches of an image that keeps its aspect ratio (NaFlex); `image_size` then only gives the size
    of the position table. None for square images."""
    pos_embed_interp_mode: PositionMode = "bilinear"
    """How positions are interpolated for a grid of another size: as SigLIP 2's in transformers, or as timm's."""
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    """Pillow's filter that images are resized by."""

    def __post_init__(self) -> None:
        _check_sizes("vision.", self, "layers", "width", "head_width", "patch_size")
        check_at_least(1, **{"vision.image_seq_len": 1 if self.image_seq_len is None else self.image_seq_len})
        _check_tower("vision.", self)
        if self.width % self.heads:
            raise UserError("vision.width", f"must be a multiple of its {self.heads} heads", self.width)
        check(min(self.grid) >= 1, "vision.image_size", f"must hold a patch of {self.patch_size}", self.image_size)

    @property
    def heads(self) -> int:
        """Attention heads."""
        return max(1, self.width // self.head_width)

    @property
    def height_and_width(self) -> tuple[int, int]:
        """In pixels."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        height, width = self.height_and_width
        return height // self.patch_size, width // self.patch_size

    @property
    def num_patches(self) -> int:
        """Per image."""
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The text tower."""

    context_length: int = 64
    """Tokens per caption; shorter captions are padded."""
    vocab_size: int = 32100
    """Rows of the token embedding table."""
    width: int = 768
    """Dimension of a token."""
    heads: int = 12
    """Number of attention heads."""
    layers: int = 12
    """Number of transformer blocks."""
    mlp_ratio: float = 4.0
    """Hidden size of the MLP, as a multiple of the width, rounded down."""
    ls_init_value: float | None = None
    """Initial value of layer scales; None for a model without them."""
    norm_eps: float = 1e-5
    """Epsilon of every layer norm."""
    proj_bias: bool = True
    """Whether the projection to the mean has a bias."""
    embed_unc: bool = True
    """Predict log variances, with a [UNC] token. Without it texts are points."""
    unc_seen: bool = True
    """Other tokens attend to [UNC], as in all released models. If False, means do not depend on it, and log_var_source
    must be "unc"."""
    init_unc_bias: float = -10.0
    """Initial log variance."""
    log_var_source: Literal["mean", "unc"] = "mean"
    """Input of the log-variance head: the projected "mean", as in all released models, or the [UNC] output."""
    hf_tokenizer_name: str | None = None
    """Hub name of the tokenizer that the model was trained with. The model itself does not use it."""
    embed_cls: bool = True
    """Compute the mean from a [CLS] after the tokens, as in all released models."""
    no_causal_mask: bool = True
    """Every token attends to every other, as in all released models. CLIP's attend to earlier tokens only."""
    pool_type: Literal["argmax", "last", "eos"] = "argmax"
    """Without [CLS], the token that the mean is computed from: the one with the largest id (CLIP's end of text), the
    last of the context (SigLIP), or the first `eos_id`."""
    eos_id: int = 2
    """Token id of pool_type "eos"."""
    gelu: Gelu = "exact"
    """Form of the GELU, unless quick_gelu is set."""
    tokenizer_clean: str | None = None
    """How that tokenizer cleans text ("canonicalize" for SigLIP's). The model itself does not use it."""

    def __post_init__(self) -> None:
        _check_sizes("text.", self, "layers", "width", "heads", "context_length", "vocab_size")
        _check_tower("text.", self)
        if self.width % self.heads:
            raise UserError("text.width", f"must be a multiple of text.heads, {self.heads}", self.width)
        if self.embed_unc and not self.unc_seen and self.log_var_source == "mean":
            raise UserError("text.unc_seen", 'must be True unless log_var_source is "unc", or nothing would read [UNC]')


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Both towers, and the initial scale and bias of the similarity."""

    embed_dim: int
    """Dimension of the embeddings."""
    vision: VisionConfig
    """The image tower."""
    text: TextConfig
    """The text tower."""
    quick_gelu: bool = False
    """Use x * sigmoid(1.702 x) instead of the GELU, in both towers."""
    init_logit_scale: float = CLIP_LOGIT_SCALE
    """Initial *log* of the similarity's scale."""
    init_logit_bias: float | None = None
    """Initial bias of the similarity. A model without one (None) can be loaded, but not trained."""

    def __post_init__(self) -> None:
        _check_sizes("", self, "embed_dim")
        if self.text.embed_unc and self.text.log_var_source == "mean" and self.text.width != self.embed_dim:
            raise UserError(
                "text.width",
                f"must equal embed_dim, {self.embed_dim}, if the log-variance head reads the mean",
                self.text.width,
            )
        # The official format cannot tell it from absent.
        check(self.init_logit_bias != 0.0, "init_logit_bias", "must not be 0, which the official format reads as none")
        check(
            all(math.isfinite(value or 0) for value in (self.init_logit_scale, self.init_logit_bias)),
            "init_logit_scale",
            "must be finite, as init_logit_bias",
        )
        check(
            self.init_logit_scale != 0.0, "init_logit_scale", "must not be 0, which the official format reads as none"
        )

    @property
    def start_variances(self) -> tuple[float, float]:
        """Total ones of images and of texts in a new model."""
        vision, text = (self.embed_dim * math.exp(tower.init_unc_bias) for tower in (self.vision, self.text))
        return vision, text


@dataclass(frozen=True, kw_only=True)
class LockConfig:
    """Which towers keep their initial weights. Log-variance heads, scale and bias always train."""

    image: bool = False
    """Freeze the image tower (LiT, arXiv:2111.07991)."""
    image_unlocked_groups: int = 0
    """Groups of a frozen image tower that still train, counted from its end as in open_clip: the projection (with
    SigLIP's attention pool), the last block with the last norm, each block before it, the input."""
    text: bool = False
    """Freeze the text tower. With both frozen, only the [UNC] parts train."""
    text_unlocked_groups: int = 0
    """The same for a frozen text tower: projection, last block with the last norm, each block before it, the input."""
    unc_vectors: bool = False
    """Freeze the [UNC] vectors of frozen towers, too: only the heads train, and means do not change."""

    def __post_init__(self) -> None:
        for tower in ("image", "text"):
            groups = getattr(self, f"{tower}_unlocked_groups")
            check_at_least(0, **{f"lock.{tower}_unlocked_groups": groups})
            check(not groups or getattr(self, tower), f"lock.{tower}_unlocked_groups", f"needs lock.{tower}", groups)
        if self.unc_vectors and not (self.image or self.text):
            raise UserError("lock.unc_vectors", "needs lock.image or lock.text", "True")


@dataclass(frozen=True, kw_only=True)
class CountedHeadConfig:
    """Form of a head whose variances are counted (`prolip.models.counted`)."""

    queries: int
    """Size of its bank."""
    kernel: Kernel

    def __post_init__(self) -> None:
        check_at_least(0, queries=self.queries)


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """Form of an adapter, which turns the embeddings of a frozen model into Gaussians (`prolip.models.adapter`)."""

    embed_dim: int
    """Dimension of the embeddings."""
    hidden: int = 0
    """Hidden size of the heads; 0 for linear heads."""
    means: Means = "fixed"
    """Means of the heads."""
    image: CountedHeadConfig | None = None
    """Form of the images' head if its variances are counted; None if they are learned."""
    text: CountedHeadConfig | None = None

    def __post_init__(self) -> None:
        _check_sizes("adapter.", self, "embed_dim")
        check_at_least(0, **{"adapter.hidden": self.hidden})
