"""Settings of `prolip adapt`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from prolip.errors import UserError, check_seed
from prolip.losses.config import LossConfig
from prolip.models.config import Means, Method


@dataclass(frozen=True, kw_only=True)
class HeadsConfig:
    """The heads of the method `heads` and their training, with AdamW and a learning rate that falls to 0."""

    hidden: int = 256
    """Hidden size of a head; 0 for a linear one."""
    means: Means = "fixed"
    """`fixed`: the means are the frozen model's embeddings. `residual`: the heads also move them."""
    steps: int = 1000
    """Optimizer steps."""
    batch_size: int = 512
    """Pairs per step, at least 2; every image is compared with all texts of its batch."""
    lr: float = 1e-3
    """Largest learning rate."""
    weight_decay: float = 0.1
    """Weight decay of the matrices."""
    seed: int = 0
    """Seed for the weights and the order of the pairs."""

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch_size", 2)):
            if getattr(self, name) < least:
                raise UserError(f"heads.{name} is {getattr(self, name)}: it must be at least {least}")
        if self.hidden < 0:
            raise UserError(f"heads.hidden is {self.hidden}: it must not be negative")
        for name in ("lr", "weight_decay"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise UserError(f"heads.{name} is {value}: it must be finite and not negative")
        check_seed("heads.seed", self.seed)


def _loss() -> LossConfig:
    """The exact forms with the demo's weights; variances have a scale of their own (docs/adapting.md)."""
    return LossConfig(
        variance_scale=2.0,
        inclusion_form="exact",
        vib_form="exact",
        inclusion_weight=1e-4,
        masked_inclusion_weight=4e-3,
    )


@dataclass(frozen=True, kw_only=True)
class AdaptOptions:
    """Learn Gaussians for a frozen CLIP or SigLIP from cached embeddings of image-text pairs, without its towers."""

    embeddings: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FOLDER|FILE")]
    """Folders that `prolip embed --what both` wrote; or .npz or .parquet files with `image` and `text`, one row per
    pair."""
    out: Path
    """Folder of the adapted model, which `prolip.load` opens."""
    masked: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FOLDER|FILE")] = ()
    """More general views of the same pairs in the same order, one folder or file for each of `embeddings`: cropped or
    masked images, shortened captions."""
    checkpoint: str | None = None
    """The frozen model, which made the embeddings, as for `prolip embed`; by default the one that the folder names.
    Needed for .npz and .parquet files."""
    method: Method = "heads"
    """`heads`: small networks predict the log variances. `laplace`: variances from a Laplace approximation, nothing is
    trained. `temperature`: no variances, a new scale and bias of the similarity."""
    heads: HeadsConfig = field(default_factory=HeadsConfig)
    """The heads; only for that method."""
    loss: LossConfig = field(default_factory=_loss)
    """The loss of the heads."""

    def __post_init__(self) -> None:
        if not self.embeddings:
            raise UserError("embeddings is empty: name at least one folder or file")
        if self.masked and len(self.masked) != len(self.embeddings):
            raise UserError(f"masked names {len(self.masked)} and embeddings {len(self.embeddings)}: name equally many")
        if self.method != "heads" and (self.heads != HeadsConfig() or self.loss != _loss() or self.masked):
            raise UserError(f"method is {self.method}: heads, loss and masked belong to the method heads")
        if self.loss.contrast != "ppcl":
            raise UserError(f"loss.contrast is {self.loss.contrast}: adapting a model needs ppcl")
