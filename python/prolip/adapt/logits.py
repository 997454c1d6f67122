"""Fit the scale and the bias of the similarity to pairs, with the embeddings as they are.

B batch, D embedding.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from prolip.adapt.pairs import PairRows
from prolip.calibration.fitting import minimise

log = logging.getLogger(__name__)

MIN_SCALE, MAX_SCALE = 1.0, 1000.0
"""Limits of the scale. The optimum is infinite for separable pairs, and at most 0 if similarity is uninformative."""
_MAX_ERROR = 0.3
"""Maximum standard error of the scale without a warning, as a share of it."""


class Logits(NamedTuple):
    """A similarity's scale and bias, and their loss."""

    scale: float
    bias: float
    loss: float
    """Per image, in nats."""


def fit_logits(batches: Sequence[PairRows]) -> Logits:
    """The scale and the bias that minimise SigLIP's loss of the batches, which is convex.

    Logs a warning if the pairs determine the scale poorly.

    Args:
        batches: pairs; each image is compared with the texts of its batch.
    """
    similarities = [batch.image.double() @ batch.text.double().T for batch in batches]
    images = sum(map(len, similarities))

    def loss(logits: Tensor) -> Tensor:
        return torch.stack([sigmoid_loss(one, logits) for one in similarities]).sum() / images

    best, curvature = minimise(loss, [10.0, -10.0])
    found = float(best[0])
    limit = min(max(found, MIN_SCALE), MAX_SCALE)
    if limit != found:
        best[0] = limit
        best[1:], _ = minimise(lambda bias: loss(torch.cat([best[:1], bias])), [-limit])
    error = float(torch.linalg.pinv(images * curvature, hermitian=True)[0, 0].sqrt())
    if found < MIN_SCALE:
        log.warning("the best scale is %.3g: similarity says little about these pairs; do their rows match?", found)
    elif not 0 < error <= _MAX_ERROR * limit:
        log.warning("the scale %.3g is a guess (standard error %.2g): give more pairs, or harder ones", limit, error)
    return Logits(limit, float(best[1]), float(loss(best)))


def sigmoid_loss(similarity: Tensor, logits: Tensor) -> Tensor:
    """SigLIP's, of similarities [B, B] with scale and bias [2], summed over images."""
    values = logits[0] * similarity + logits[1]
    return F.softplus(values).sum() - values.diagonal().sum()
