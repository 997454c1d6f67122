"""Settings of the training loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from prolip.errors import UserError

InclusionForm = Literal["official", "exact"]


VibForm = Literal["official", "exact"]


Contrast = Literal["ppcl", "siglip", "clip"]


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights and forms of the terms; the defaults are the published pre-training recipe."""

    contrast: Contrast = "ppcl"
    """The contrastive loss: ProLIP's, or a control that sees means alone: "siglip", the same without variances, or
    "clip", a softmax over all pairs, which reads no bias."""
    ppcl_weight: float = 1.0
    """Contrastive loss, whichever it is."""
    inclusion_weight: float = 1e-7
    """Image in its texts."""
    masked_inclusion_weight: float = 1e-3
    """Whole in masked, for images and for texts."""
    vib_weight: float = 1e-4
    """Information bottleneck, images plus texts."""
    inclusion_form: InclusionForm = "official"
    """Score of the inclusion terms: as released, or the exact H."""
    inclusion_scale: float = 1000.0
    """Factor on the score inside the sigmoid."""
    inclusion_eps: float = -20.0
    """exp of it scales the distance of the means in the official score; the exact score has no such factor."""
    vib_form: VibForm = "official"
    """Divergence of the bottleneck: as released, or the exact one."""
    exchange: Literal["ring", "all_gather"] = "ring"
    """How texts reach the other ranks: one rank's at a time, or all at once for more memory and fewer messages."""

    def __post_init__(self) -> None:
        for name in ("ppcl_weight", "inclusion_weight", "masked_inclusion_weight", "vib_weight"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise UserError(f"loss.{name} is {value}: it must be finite and not negative")
        if not self.inclusion_scale > 0:
            raise UserError(f"loss.inclusion_scale is {self.inclusion_scale}: it must be positive")

    @property
    def reads_bias(self) -> bool:
        """Whether the similarity's bias counts, and is trained."""
        return self.contrast != "clip"

    @property
    def reads_log_var(self) -> bool:
        """Whether log variances count; without them both towers may give points."""
        weights = (self.inclusion_weight, self.masked_inclusion_weight, self.vib_weight)
        return self.contrast == "ppcl" or any(weight > 0 for weight in weights)
