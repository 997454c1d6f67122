"""Settings of `prolip adapt`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from prolip.errors import UserError, check, check_at_least, check_seed
from prolip.losses.config import LossConfig
from prolip.models.config import Kernel, Means


@dataclass(frozen=True, kw_only=True)
class HeadsConfig:
    """The heads and their training, with AdamW and a cosine schedule."""

    hidden: int = 256
    """Hidden size of a head; 0 for a linear one."""
    means: Means = "fixed"
    """`fixed`: the means are the frozen model's embeddings. `residual`: the heads also move them."""
    steps: int = 1000
    """Optimizer steps."""
    batch_size: int = 512
    """Pairs per step, at least 2."""
    lr: float = 1e-3
    """Maximum learning rate."""
    weight_decay: float = 0.1
    """Weight decay of the matrices."""
    seed: int = 0
    """Seed of weights and order."""

    def __post_init__(self) -> None:
        minimum = {"steps": 1, "batch_size": 2, "hidden": 0, "lr": 0, "weight_decay": 0}
        for name, least in minimum.items():
            value = getattr(self, name)
            check(least <= value < math.inf, f"heads.{name}", f"must be finite and at least {least}", value)
        check_seed("heads.seed", self.seed)


@dataclass(frozen=True, kw_only=True)
class CountedConfig:
    """Variances that are counted from a bank of unlabelled embeddings."""

    kernel: Kernel | None = None
    """`softmax`: how many queries choose an item among others. `nearest`: its mean similarity to the nearest queries.
    By default `softmax` if the bank has texts and images, else `nearest`."""
    strength: float | None = None
    """Share of the correction. By default 1 for `softmax`, 1/2 for `nearest`, and 0, with a warning, if the bank is not
    like the items."""
    bank_size: int = 4096
    """Maximum number of the bank's texts, and of its images, drawn at random."""

    def __post_init__(self) -> None:
        strength = self.strength
        check(strength is None or 0 <= strength < math.inf, "counted.strength", "must be finite, at least 0", strength)
        check_at_least(1, **{"counted.bank_size": self.bank_size})


@dataclass(frozen=True, kw_only=True)
class AlignConfig:
    """Linear heads on the features of two frozen encoders."""

    embed_dim: int = 128
    """Dimension of the embeddings."""
    batch_size: int = 1024
    """Maximum number of pairs per step."""
    seed: int = 0
    """Seed of weights and order."""
    templates: tuple[str, ...] = ()
    """Prompts that turn names of classes into captions, with {} for the name; by default the data set's own."""
    caption_key: str = "txt"
    """Where the captions of a sample are without names of classes: `txt`, or a dotted path into its json."""
    selection: str | None = None
    """A selection of the shards' samples."""

    def __post_init__(self) -> None:
        check_at_least(1, **{"align.embed_dim": self.embed_dim})
        check_at_least(2, **{"align.batch_size": self.batch_size})
        check_seed("align.seed", self.seed)


def _loss() -> LossConfig:
    """Exact forms, the demo's weights, variances at a scale of their own (docs/results.md)."""
    return LossConfig(
        variance_scale=2.0,
        inclusion_form="exact",
        vib_form="exact",
        inclusion_weight=1e-4,
        masked_inclusion_weight=4e-3,
    )


@dataclass(frozen=True, kw_only=True)
class AdaptOptions:
    """Give a frozen CLIP or SigLIP Gaussians from cached embeddings, or make a model of two frozen encoders."""

    out: Path
    """Folder of the adapted model, which `prolip.load` opens."""
    image: str | None = None
    """With `text` and `data`: a frozen image encoder: timm:NAME, open_clip:NAME/TAG or transformers:NAME."""
    text: str | None = None
    """A frozen text encoder: sentence-transformers:NAME, open_clip:NAME/TAG or transformers:NAME."""
    data: str | None = None
    """What both learn from: one folder of images per class, a folder with a table of captions, or shards."""
    embeddings: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FOLDER")] = ()
    """Folders that `prolip embed` or `prolip import` wrote, here or at s3://, gs:// or az://. Heads learn from pairs
    (`--what both`). Counting takes texts, images or both."""
    method: Literal["heads", "counted"] = "heads"
    """`heads`: learn variances from pairs. `counted`: count how many unlabelled queries an item attracts. Images are
    counted with the folders' texts, texts with their images."""
    masked: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FOLDER")] = ()
    """More general views of the same pairs in the same order, one folder for each of `embeddings`: cropped or
    masked images, shortened captions."""
    checkpoint: str | None = None
    """The frozen model, which made the embeddings, as for `prolip embed`; by default the one that the folder names, if
    it does."""
    heads: HeadsConfig = field(default_factory=HeadsConfig)
    """The small networks that predict the log variances."""
    loss: LossConfig = field(default_factory=_loss)
    """The loss of the heads."""
    counted: CountedConfig = field(default_factory=CountedConfig)
    """How variances are counted."""
    align: AlignConfig = field(default_factory=AlignConfig)
    """Heads on two encoders."""

    def __post_init__(self) -> None:
        ways = {"image": self.image, "text": self.text, "data": self.data}
        given = [name for name, value in ways.items() if value is not None]
        if given:
            missing = next((name for name in ways if name not in given), None)
            check(missing is None, missing, f"must be given with {given[0]}")
            check(not self.embeddings, "embeddings", "must not be given with image, text and data")
            return
        check(self.embeddings, "embeddings", "name at least one folder, or give --image, --text and --data")
        if self.masked and len(self.masked) != len(self.embeddings):
            raise UserError("masked", f"must be as many as embeddings, {len(self.embeddings)}", len(self.masked))
        check(not self.masked or self.method == "heads", "masked", "needs method heads", self.method)
        check(self.loss.contrast == "ppcl", "loss.contrast", "must be ppcl", self.loss.contrast)
