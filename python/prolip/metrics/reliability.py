"""How well probabilities agree with outcomes. N items, C labels."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from prolip.metrics.statistics import Interval, bootstrap, equal_mass_error, mean, sorted_means

NUM_BINS = 15


class Reliability(NamedTuple):
    """Figures with intervals; small is good."""

    calibration_error: Interval
    """`prolip.metrics.statistics.equal_mass_error` of the largest probability, or of all pairs; in [0, 1]."""
    brier: Interval
    """Mean of sum over labels of (p - 1 if it is the right one)^2, in [0, 2]; of pairs, mean of (p - 1 if they
    match)^2, in [0, 1]."""
    nll: Interval
    """Mean negative log-likelihood of labels, or of pairs."""


def item_losses(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood and Brier score of each item, f64 [N] each."""
    logits = logits.double()
    target = F.one_hot(labels, logits.shape[1])
    return F.cross_entropy(logits, labels, reduction="none"), (logits.softmax(dim=1) - target).square().sum(dim=1)


def measure_reliability(logits: Tensor, labels: Tensor, *, num_resamples: int = 1000, seed: int = 0) -> Reliability:
    """Measure the softmax of logits, each figure with a 95 % bootstrap interval.

    Args:
        logits: [N, C], after any temperature.
        labels: i64 [N].
    """
    nll, brier = item_losses(logits, labels)
    confidence, answer = logits.double().softmax(dim=1).max(dim=1)
    draws = {"num_resamples": num_resamples, "seed": seed}
    error = bootstrap(equal_mass_error, confidence, answer == labels, **draws)
    return Reliability(error, bootstrap(mean, brier, **draws), bootstrap(mean, nll, **draws))


def measure_pairs(logits: Tensor, match: Tensor, *, num_resamples: int = 1000, seed: int = 0) -> Reliability:
    """Measure the sigmoid of pair logits, each figure with a 95 % bootstrap interval.

    A resample draws items with all their pairs, which depend on each other, and keeps the bins of the calibration
    error. Equal logits are in one bin.

    Args:
        logits: [N, C], after any factor and bias.
        match: bool [N, C].
    """
    logits, target = logits.double(), match.double()
    nll = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(dim=1)
    gaps = target - logits.sigmoid()
    ranked, edges = logits.flatten().sort().values, _edges(gaps.numel(), NUM_BINS)
    bins = torch.bucketize(logits, ranked[edges[1:-1]], right=True)
    in_bins = gaps.new_zeros(len(gaps), len(edges) - 1).scatter_add_(1, bins, gaps) / gaps.shape[1]

    def error(items: Tensor, counts: Tensor) -> Tensor:
        return (counts @ items).abs().sum(dim=1) / counts.sum(dim=1)

    draws = {"num_resamples": num_resamples, "seed": seed}
    brier = gaps.square().mean(dim=1)
    return Reliability(
        bootstrap(error, in_bins, **draws), bootstrap(mean, brier, **draws), bootstrap(mean, nll, **draws)
    )


def reliability_curve(confidence: Tensor, correct: Tensor, num_bins: int = NUM_BINS) -> tuple[Tensor, Tensor]:
    """Mean confidence and accuracy in bins of equally many items, f64 [bins] each, for a chart."""
    edges = _edges(len(confidence), num_bins)
    mean_confidence, accuracy = (
        F.pad(sorted_means(confidence, side).cumsum(0), (1, 0))[edges].diff() / edges.diff()
        for side in (confidence, correct)
    )
    return mean_confidence, accuracy


def _edges(num_items: int, num_bins: int) -> Tensor:
    """i64 [bins + 1], where bins of equally many items begin and end."""
    return torch.linspace(0, num_items, min(num_bins, num_items) + 1, dtype=torch.float64).round().long()
