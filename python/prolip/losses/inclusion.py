"""The inclusion loss: the first of a pair should be included in the second."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from prolip.gaussian import Gaussian, inclusion_score, official_inclusion_score
from prolip.losses.config import InclusionForm


def inclusion_loss(specific: Gaussian, general: Gaussian, *, form: InclusionForm, scale: float, eps: float) -> Tensor:
    """-log sigmoid(scale * score), averaged over items and dimensions, a scalar >= 0 (arXiv:2410.18857).

    The arguments, [..., D], are broadcast. The score is `prolip.gaussian.inclusion_score`, or
    `official_inclusion_score`, the only one that uses `eps`.
    """
    if form == "official":
        score = official_inclusion_score(specific, general, eps)
    else:
        score = inclusion_score(specific, general)
    return F.softplus(-scale * score).mean()
