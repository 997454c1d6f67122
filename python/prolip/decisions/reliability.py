"""How well probabilities agree with outcomes: negative log-likelihood, Brier score and calibration error.

N items, C labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from prolip.metrics.statistics import Interval, bootstrap, equal_mass_error, mean, sorted_means, value_of

NUM_BINS = 15


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """How well probabilities agree with the labels, each with a bootstrap interval; small is good.

    `measure_reliability` is about one answer per item, `measure_pairs` about each pair of an item and a label.
    """

    nll: Interval
    """Mean of -ln p(label); of pairs, of -ln p(what is true of the pair)."""
    brier: Interval
    """Mean of sum over labels of (p - 1 if it is the right one)^2, in [0, 2]; of pairs, mean of
    (p - 1 if they match)^2, in [0, 1]."""
    calibration_error: Interval
    """`equal_mass_calibration_error` of the largest probability, or of all pairs; in [0, 1]."""


def item_losses(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The negative log-likelihood and the Brier score of each item, f64 [N] each, from logits [N, C] and labels."""
    log_probabilities = logits.double().log_softmax(dim=1)
    nll = -log_probabilities.gather(1, labels[:, None])[:, 0]
    gaps = log_probabilities.exp_()
    gaps.scatter_add_(1, labels[:, None], gaps.new_full((len(gaps), 1), -1))
    return nll, gaps.square_().sum(dim=1)


def equal_mass_calibration_error(confidence: Tensor, correct: Tensor, num_bins: int = NUM_BINS) -> float:
    """Mean distance of accuracy from confidence over bins of equally many items, weighted by items; in [0, 1].

    Items are sorted by confidence, and bins differ by one item at most (arXiv:2012.08668). Equally confident items
    count with their mean accuracy, so the order of the items has no effect. Bins of equal width are
    `prolip.metrics.uncertainty.expected_calibration_error`. They leave most bins of a confident model nearly empty.

    Args:
        confidence: [N], the probability that each answer is right.
        correct: [N], 0 or 1 (or bool).
        num_bins: at least 1; at most N bins are used.

    Raises:
        ValueError: there is no item.
    """
    return value_of(partial(equal_mass_error, num_bins=num_bins), confidence, correct)


def measure_reliability(logits: Tensor, labels: Tensor, *, num_resamples: int = 1000, seed: int = 0) -> Reliability:
    """Measure how reliable the softmax of logits is, each figure with a 95 % bootstrap interval.

    Args:
        logits: [N, C], after any temperature.
        labels: i64 [N].
        num_resamples: bootstrap resamples.
        seed: seed of the resampling; equal seeds resample equal items.
    """
    nll, brier = item_losses(logits, labels)
    confidence, answer = logits.double().softmax(dim=1).max(dim=1)
    draws = {"num_resamples": num_resamples, "seed": seed}
    return Reliability(
        nll=bootstrap(mean, nll, **draws),
        brier=bootstrap(mean, brier, **draws),
        calibration_error=bootstrap(equal_mass_error, confidence, answer == labels, **draws),
    )


def measure_pairs(
    logits: Tensor, match: Tensor, *, num_bins: int = NUM_BINS, num_resamples: int = 1000, seed: int = 0
) -> Reliability:
    """Measure the sigmoid of pair logits, each figure with the interval of 95 % of its resamples.

    A resample draws items, each with all its pairs, because the pairs of one item depend on each other. Resamples keep
    the bins of the calibration error, so that the pairs are sorted only once. The order of the items has no effect on
    the figures, also with equal probabilities.

    Args:
        logits: [N, C], after any factor and bias.
        match: bool [N, C], which pairs belong together.
        num_bins: bins of the calibration error.
        num_resamples: bootstrap resamples.
        seed: seed of the resampling; equal seeds resample equal items.
    """
    logits, target = logits.double(), match.double()
    nll = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(dim=1)
    probabilities = logits.sigmoid()
    gaps = target - probabilities
    edges = _edges(gaps.numel(), num_bins)
    ranked, order = probabilities.flatten().sort()
    places = torch.empty_like(order)
    places[order] = torch.arange(len(edges) - 1).repeat_interleave(edges.diff())
    in_bins, rest = gaps.new_zeros(len(gaps), len(edges) - 1), gaps.flatten().clone()
    # Where a bin ends among equal probabilities, each of these pairs is divided among the bins in the same shares.
    for value in torch.unique(ranked[edges[1:-1]]):
        low, high = (int(torch.searchsorted(ranked, value, right=right)) for right in (False, True))
        pairs, shares = order[low:high], edges.clamp(low, high).diff().double() / (high - low)
        sums = gaps.new_zeros(len(gaps)).index_add_(0, pairs // gaps.shape[1], rest[pairs])
        in_bins += sums[:, None] * shares
        rest[pairs] = 0
    in_bins.scatter_add_(1, places.reshape(gaps.shape), rest.reshape(gaps.shape))

    def error(items: Tensor, counts: Tensor) -> Tensor:
        return (counts @ items).abs().sum(dim=1) / (counts.sum(dim=1) * gaps.shape[1])

    draws = {"num_resamples": num_resamples, "seed": seed}
    return Reliability(
        nll=bootstrap(mean, nll, **draws),
        brier=bootstrap(mean, gaps.square().mean(dim=1), **draws),
        calibration_error=bootstrap(error, in_bins, **draws),
    )


def reliability_curve(confidence: Tensor, correct: Tensor, num_bins: int = NUM_BINS) -> tuple[Tensor, Tensor]:
    """Mean confidence and accuracy in bins of equally many items, f64 [bins] each, for a chart."""
    edges = _edges(len(confidence), num_bins)
    mean_confidence, accuracy = (
        torch.cat([edges.new_zeros(1).double(), sorted_means(confidence, side).cumsum(0)])[edges].diff() / edges.diff()
        for side in (confidence, correct)
    )
    return mean_confidence, accuracy


def _edges(num_items: int, num_bins: int) -> Tensor:
    """Where bins of equally many items begin and end, i64 [bins + 1]."""
    return torch.linspace(0, num_items, min(num_bins, num_items) + 1, dtype=torch.float64).round().long()
