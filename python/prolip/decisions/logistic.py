"""Logistic regression on a few features, by Newton's method. N items, F features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_STEPS = 100
_EXACT = 1e-10


def fit_logistic(features: Tensor, target: Tensor, ridge: float = 0.0) -> Tensor:
    """Weights and bias that minimise the cross-entropy of sigmoid(features @ weights + bias), f64 [F + 1], bias last.

    Args:
        features: [N, F].
        target: [N], probabilities in [0, 1] (or bool).
        ridge: weight of half the squared norm of the weights for standardised features; the bias is free. Above 0 the
            result is finite even if a plane separates the targets.

    Raises:
        ValueError: there is no item, or a feature is not finite.
    """
    if len(target) == 0:
        raise ValueError("a regression needs at least one item")
    if not bool(features.isfinite().all()):
        raise ValueError("features must be finite")
    features, target = features.double(), target.double()
    centre, spread = features.mean(dim=0), features.std(dim=0, correction=0)
    # The spread of a constant feature is 0, up to rounding.
    spread = torch.where(spread > 1e-12 * centre.abs(), spread, 1.0)
    design = torch.cat([(features - centre) / spread, torch.ones_like(target)[:, None]], dim=1)
    penalty = ridge * torch.ones(design.shape[1], dtype=torch.float64)
    penalty[-1] = 0

    def loss(weights: Tensor) -> float:
        entropy = F.binary_cross_entropy_with_logits(design @ weights, target)
        return float(entropy + 0.5 * (penalty * weights.square()).sum())

    weights = design.new_zeros(design.shape[1])
    for _ in range(_STEPS):
        probabilities = (design @ weights).sigmoid()
        gradient = design.T @ (probabilities - target) / len(target) + penalty * weights
        curvature = (design * (probabilities * (1 - probabilities))[:, None]).T @ design / len(target)
        # A constant feature has no curvature. The pseudo-inverse takes the smallest of the equally good steps.
        step = torch.linalg.pinv(curvature + penalty.diag(), hermitian=True) @ gradient
        size, before = 1.0, loss(weights)
        while size > _EXACT and loss(weights - size * step) > before:
            size /= 2
        weights = weights - size * step
        if float((size * step).norm()) <= _EXACT * (1 + float(weights.norm())):
            break
    slopes = weights[:-1] / spread
    return torch.cat([slopes, (weights[-1] - slopes @ centre)[None]])
