"""The inclusion loss: the first of a pair should lie in the second."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from prolip.gaussian import Gaussian, inclusion_score, official_inclusion_score
from prolip.losses.config import InclusionForm


def inclusion_loss(specific: Gaussian, general: Gaussian, *, form: InclusionForm, scale: float, eps: float) -> Tensor:
    """-log sigmoid(scale * score) per dimension, averaged over all items and dimensions, >= 0.

    `eps` belongs to the official score alone (`prolip.gaussian.official_inclusion_score` says how it departs).
    """
    if form == "official":
        score = official_inclusion_score(specific, general, eps)
    else:
        score = inclusion_score(specific, general)
    return F.softplus(-scale * score).mean()
