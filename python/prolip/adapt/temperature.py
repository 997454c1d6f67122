"""Fit the scale and the bias of the similarity to pairs, with the embeddings as they are.

B batch, D embedding.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from prolip.adapt.pairs import PairRows

log = logging.getLogger(__name__)

MIN_SCALE, MAX_SCALE = 1.0, 1000.0
"""Limits of the scale. On pairs that the model separates without an error, the best scale is infinite; if similarity
says nothing about the pairs, it is 0 or below."""
_UNSURE = 0.3
"""Largest standard error of the scale, as a share of it, without a warning. Beyond it, the loss of new pairs is more
than a few percent above that of their own best scale."""


class Logits(NamedTuple):
    """A similarity's scale and bias, and their loss."""

    scale: float
    bias: float | None
    loss: float
    """Loss per image in nats."""


def fit_logits(batches: Sequence[PairRows], *, with_bias: bool) -> Logits:
    """Return the scale, and with a bias also the bias, that minimise the contrastive loss of the batches.

    With a bias, this is SigLIP's loss, a yes or no for every pair. Without one, it is CLIP's, the mean of both
    softmaxes over a batch. Both are convex in scale and bias, so the result does not depend on the start. A warning is
    logged if the pairs say little about the scale.

    Args:
        batches: pairs; each image is compared with the texts of its batch.
        with_bias: whether to fit a bias, with SigLIP's loss.
    """
    similarities = [batch.image.double() @ batch.text.double().T for batch in batches]
    images = sum(map(len, similarities))
    scale = torch.tensor(10.0, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(-10.0, dtype=torch.float64, requires_grad=with_bias)
    measure = sigmoid_loss if with_bias else softmax_loss

    def loss_at() -> Tensor:
        return torch.stack([measure(one, scale, bias) for one in similarities]).sum() / images

    _minimise(loss_at, [scale, bias] if with_bias else [scale])
    found = float(scale.detach())
    if not MIN_SCALE <= found <= MAX_SCALE:
        if not found >= MIN_SCALE:
            log.warning("the best scale is %.3g: similarity says little about these pairs; do their rows match?", found)
        with torch.no_grad():
            scale.fill_(max(MIN_SCALE, min(found, MAX_SCALE)) if math.isfinite(found) else MIN_SCALE)
        if with_bias:
            _minimise(loss_at, [bias])
    with torch.no_grad():
        logits = Logits(float(scale), float(bias) if with_bias else None, float(loss_at()))
    error = standard_error(similarities, logits)
    if found >= MIN_SCALE and error > _UNSURE * logits.scale:
        log.warning(
            "the scale %.3g is a guess, with a standard error of %.2g: these pairs are too few, or too easy to tell "
            "apart: give more pairs, or harder ones",
            logits.scale,
            error,
        )
    return logits


def standard_error(similarities: Sequence[Tensor], logits: Logits) -> float:
    """The standard error of the scale that fits best, from the curvature of the loss there; infinity without any.

    Args:
        similarities: f64, [N, N] each.
        logits: scale and bias at the smallest loss.
    """
    information = 0.0
    if logits.bias is None:
        for some in similarities:
            for side in (0, 1):
                shares = (logits.scale * some).softmax(side)
                centred = some - (shares * some).sum(side, keepdim=True)
                information += 0.5 * float((shares * centred.square()).sum())
    else:
        values = torch.cat([some.flatten() for some in similarities])
        shares = (logits.scale * values + logits.bias).sigmoid()
        weight = shares * (1 - shares)
        centred = values - (weight * values).sum() / weight.sum()  # the best bias moves with the scale
        information = float((weight * centred.square()).sum())
    return information**-0.5 if information > 0 else math.inf


def _minimise(loss_at: Callable[[], Tensor], free: list[Tensor]) -> None:
    optimizer = torch.optim.LBFGS(free, max_iter=200, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_at()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]


def sigmoid_loss(similarity: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """SigLIP's loss [N, N] -> scalar, summed over images."""
    logits = scale * similarity + bias
    return F.softplus(logits).sum() - logits.diagonal().sum()


def softmax_loss(similarity: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """CLIP's loss [N, N] -> scalar, summed over images; a bias has no effect."""
    del bias
    logits = scale * similarity
    both = logits.logsumexp(1).sum() + logits.logsumexp(0).sum()
    return 0.5 * both - logits.diagonal().sum()
