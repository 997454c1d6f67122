"""Settings of the training loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from prolip.errors import UserError, check_choice

InclusionForm = Literal["official", "exact"]
VibForm = Literal["official", "exact"]
Contrast = Literal["ppcl", "siglip"]


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights and forms of the terms. The defaults are those of the published pre-training script."""

    contrast: Contrast = "ppcl"
    """The contrastive loss: ProLIP's "ppcl", or a control that ignores variances: "siglip", the same on means alone."""
    ppcl_weight: float = 1.0
    """Weight of the contrastive loss."""
    siglip_weight: float = 0.0
    """Weight of SigLIP's loss on means, with the same scale and bias, in addition (for an ablation)."""
    variance_scale: float | None = None
    """If set, variances learn from a contrastive loss of their own with this fixed logit scale, such as 2, which does
    not reach the means (docs/specification.md, section 3.3). None, as published: both share the learned scale."""
    inclusion_weight: float = 1e-7
    """Weight of the inclusion of images in their texts."""
    masked_inclusion_weight: float = 1e-3
    """Weight of the inclusion of images and texts in their own masked views."""
    vib_weight: float = 1e-4
    """Weight of the information bottleneck (VIB), images plus texts."""
    inclusion_form: InclusionForm = "official"
    """Score of the inclusion terms: as in the released code, or the exact H."""
    inclusion_scale: float = 1000.0
    """Factor on the inclusion score inside the sigmoid."""
    inclusion_eps: float = -20.0
    """In the official score, exp(inclusion_eps) scales the distance of the means. Unused by the exact score."""
    vib_form: VibForm = "official"
    """KL divergence of the bottleneck: as in the released code, or the exact one."""

    def __post_init__(self) -> None:
        kinds = {"contrast": Contrast, "inclusion_form": InclusionForm, "vib_form": VibForm}
        for name, kind in kinds.items():
            check_choice(f"loss.{name}", getattr(self, name), kind)
        for name in ("ppcl_weight", "siglip_weight", "inclusion_weight", "masked_inclusion_weight", "vib_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"loss.{name}", "must be finite and at least 0", getattr(self, name))
        for name, value in (("variance_scale", self.variance_scale), ("inclusion_scale", self.inclusion_scale)):
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"loss.{name}", "must be finite and positive", value)

    @property
    def reads_log_var(self) -> bool:
        """Whether the loss uses log variances. If not, both towers may return points."""
        weights = (self.inclusion_weight, self.masked_inclusion_weight, self.vib_weight)
        return self.contrast == "ppcl" or self.variance_scale is not None or any(weight > 0 for weight in weights)
