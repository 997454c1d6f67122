"""What a model is made of: typed configurations, the released ones by name, and the official JSON form.

Field names are the official keys wherever such a key exists, so that one vocabulary serves both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from prolip.errors import UserError

JsonDict = dict[str, Any]
Gelu = Literal["exact", "tanh"]
Precision = Literal["fp32", "bf16", "fp16"]
"""Matrix products of the towers: fp32, or a lower type by autocast. Weights, heads and losses are always fp32."""
ResizeForm = Literal["official", "corrected"]
Resize = Literal["off"] | ResizeForm
CLIP_LOGIT_SCALE = math.log(1.0 / 0.07)
# What the released loader takes where a checkpoint of another kind of model brings no bias.
START_WITHOUT_BIAS = {"logit_bias": -10.0, "logit_scale": math.log(10.0)}


def _check_sizes(block: str, config: object, names: tuple[str, ...]) -> None:
    for name in names:
        if getattr(config, name) < 1:
            raise UserError(f"{block}.{name} is {getattr(config, name)}: it must be at least 1")


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
            raise UserError(f"vision.width {self.width} is not a multiple of its {self.heads} heads")
        if min(self.grid) < 1:
            raise UserError(f"vision.image_size {self.image_size} is smaller than a patch of {self.patch_size}")

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
            raise UserError(f"text.width {self.width} is not a multiple of text.heads {self.heads}")
        if self.embed_unc and not self.unc_seen and self.log_var_source == "mean":
            raise UserError('text.unc_seen is False: log_var_source must be "unc", or nothing would read [UNC]')


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
            raise UserError(
                f"text.width {self.text.width} differs from embed_dim {self.embed_dim}: a log-variance head that reads "
                'the mean needs them equal; log_var_source="unc" does not'
            )
        # The official format cannot tell 0 from absent.
        if self.init_logit_bias == 0.0:
            raise UserError("init_logit_bias is 0, which the official format reads as none: take None or another value")
        if self.init_logit_scale == 0.0:
            raise UserError("init_logit_scale is 0, which the official format reads as no scale at all")


# ---------------------------------------------------------------------------------------------------------------------
# The official JSON form. Each table: keys that are read by name, keys that have no effect, and values that are refused.


@dataclass(frozen=True, kw_only=True)
class LockConfig:
    """Towers that keep the weights they start with; log-variance heads, scale and bias always train."""

    image: bool = False
    """Lock the image tower (LiT, arXiv:2111.07991)."""
    image_unlocked_groups: int = 0
    """Groups of a locked image tower that train all the same, counted from its end as open_clip does: what projects to
    the mean (with SigLIP's attention pool), the last block with the last norm, each block before it, the input."""
    text: bool = False
    """Lock the text tower. Both locked, the new [UNC] alone is trained."""
    text_unlocked_groups: int = 0
    """The same for a locked text tower: projection, last block with the last norm, each block before it, the input."""
    unc_vectors: bool = False
    """Lock the [UNC] vectors of locked towers, too: the heads alone learn, no graph of the towers is kept, and the
    means stay what they were."""

    def __post_init__(self) -> None:
        for tower in ("image", "text"):
            groups = getattr(self, f"{tower}_unlocked_groups")
            if groups < 0:
                raise UserError(f"lock.{tower}_unlocked_groups is {groups}: it must not be negative")
            if groups and not getattr(self, tower):
                raise UserError(
                    f"lock.{tower}_unlocked_groups is {groups}: only a locked tower has some (lock.{tower})"
                )
        if self.unc_vectors and not (self.image or self.text):
            raise UserError("lock.unc_vectors is True: no tower is locked (lock.image, lock.text)")
