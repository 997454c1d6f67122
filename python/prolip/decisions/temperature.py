"""Temperature scaling: a factor for logits, and for single pairs a bias too, fitted on labelled items.

N items, C labels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from prolip.decisions.logistic import fit_logistic

BOUND = 1000.0
"""A temperature lies in [1 / BOUND, BOUND]."""
_STEPS = 200
_TOLERANCE = 1e-12


class PairScale(NamedTuple):
    """Factor and bias of pair logits: a pair belongs together with probability sigmoid(factor * logit + bias)."""

    factor: float
    bias: float


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature that makes the labels most likely. Divide logits by it before the softmax.

    The mean negative log-likelihood is convex in 1 / temperature (arXiv:1706.04599, section 4.2). Newton's method finds
    its minimum, and bisection keeps it in bounds. If every item's own label has the largest logit, there is no
    minimum. If all but one have it, and that one almost has, the minimum is far out, and new items are answered with
    too much certainty. So if the standard error is as large as the result, the share 1 / (N + 1) of each label goes
    evenly to all labels, as in `fit_pairs`. If the logits say nothing about the labels, the result is `BOUND`.

    Args:
        logits: [N, C].
        labels: i64 [N].

    Raises:
        ValueError: there is no item, or a logit is not finite.
    """
    if len(labels) == 0:
        raise ValueError("a temperature needs at least one labelled item")
    if not bool(logits.isfinite().all()):
        raise ValueError("logits must be finite")
    logits = logits.double()
    right = logits.gather(1, labels[:, None])
    if bool((logits == right).all()):
        return BOUND
    inverse, curvature = _newton(logits, right)
    if not inverse * math.sqrt(len(labels) * curvature) > 1:
        inverse, _ = _newton(logits, right + (logits.mean(dim=1, keepdim=True) - right) / (len(labels) + 1))
    return 1 / inverse


def _newton(logits: Tensor, right: Tensor) -> tuple[float, float]:
    """The inverse temperature of the smallest loss, and the mean curvature of the loss there.

    The logits are f64 [N, C]; `right`, [N, 1], are those of the labels, or a mean over labels.
    """
    low, high, inverse = 1 / BOUND, BOUND, 1.0
    for _ in range(_STEPS):
        probabilities = (inverse * logits).softmax(dim=1)
        expected = (probabilities * logits).sum(dim=1, keepdim=True)
        slope = float((expected - right).mean())
        curvature = float((probabilities * (logits - expected).square()).sum(dim=1).mean())
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        step = inverse - slope / curvature if curvature > 0 else math.nan
        found = step if low < step < high else math.sqrt(low * high)
        if abs(found - inverse) <= _TOLERANCE * inverse:
            break
        inverse = found
    return inverse, curvature


def fit_pairs(logits: Tensor, match: Tensor) -> PairScale:
    """Factor and bias that make the pairs' matches most likely.

    Logistic regression on one feature. As in Platt's method, matches count as (P + 1) / (P + 2) and others as
    1 / (Q + 2), with P matches and Q others. So factor and bias are finite even if the logits separate the two.

    Args:
        logits: [N, C], the model's pair logits.
        match: bool [N, C], which pairs belong together.

    Raises:
        ValueError: no pair belongs together, or all do; or a logit is not finite.
    """
    num_matches, num_others = int(match.sum()), int((~match).sum())
    if not num_matches or not num_others:
        raise ValueError("a factor and a bias need pairs that belong together, and pairs that do not")
    target = torch.where(match.flatten(), (num_matches + 1) / (num_matches + 2), 1 / (num_others + 2))
    factor, bias = fit_logistic(logits.flatten()[:, None], target).tolist()
    return PairScale(factor, bias)
