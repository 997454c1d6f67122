"""What the variances say: uncertainty against accuracy, and by level of generality (SPEC §9).

An item's uncertainty is the sum of its variances over dimensions. N items.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from prolip.eval.statistics import pearson, spearman
from prolip.gaussian import Gaussian


@dataclass(frozen=True, kw_only=True)
class AccuracyBins:
    """Accuracy in bins of equal size, the most certain items first."""

    accuracy: list[float]
    """Share of correct items a bin, in [0, 1]."""
    mean_uncertainty: list[float]
    bin_size: int
    num_dropped: int
    """The remainder of N / bins: the most uncertain items, left out as in the published measure."""
    pearson: float
    """Correlation of accuracy with the bin's number; negative is good, NaN when all bins are equal."""


@dataclass(frozen=True, kw_only=True)
class LevelUncertainty:
    """Uncertainty by level of generality, the most general level first."""

    mean: list[float]
    relative: list[float]
    """`mean` divided by that of the most general level."""
    low: list[float]
    """10th percentile, relative to the most general level's mean."""
    high: list[float]
    """90th percentile, likewise."""
    spearman: float
    """Rank correlation of uncertainty with generality over all items; 1: more general is always more uncertain."""


def uncertainty_bins(uncertainty: Tensor, correct: Tensor, num_bins: int = 10) -> AccuracyBins:
    """Accuracy by uncertainty (SPEC §9): sorted ascending, bins of floor(N / num_bins), the remainder dropped.

    Args:
        uncertainty: [N], sum of variances.
        correct: [N], 0 or 1 (or bool).
        num_bins: at least 1.

    Raises:
        ValueError: fewer items than bins.
    """
    size = len(uncertainty) // num_bins
    if size == 0:
        raise ValueError(f"{len(uncertainty)} items do not fill {num_bins} bins")
    order = torch.argsort(uncertainty, stable=True)[: size * num_bins].reshape(num_bins, size)
    accuracy = correct.double()[order].mean(dim=1)
    return AccuracyBins(
        accuracy=accuracy.tolist(),
        mean_uncertainty=uncertainty.double()[order].mean(dim=1).tolist(),
        bin_size=size,
        num_dropped=len(uncertainty) - size * num_bins,
        pearson=pearson(accuracy, torch.arange(num_bins, device=accuracy.device)),
    )


def area_under_risk_coverage(uncertainty: Tensor, correct: Tensor) -> float:
    """Mean, over k = 1..N, of the share of wrong items among the k most certain ones; in [0, 1], small is good.

    Equally uncertain items have no order: the mean over all their orders is taken, so that a constant uncertainty
    scores the error rate.

    Args:
        uncertainty: [N], larger is less certain.
        correct: [N], 0 or 1 (or bool).

    Raises:
        ValueError: there is no item.
    """
    if uncertainty.numel() == 0:
        raise ValueError("no item has a risk")
    _, place, sizes = torch.unique(uncertainty, return_inverse=True, return_counts=True)
    wrong = torch.zeros(len(sizes), dtype=torch.float64, device=place.device)
    wrong.index_add_(0, place, 1 - correct.double())
    share = (wrong / sizes).repeat_interleave(sizes)
    coverage = torch.arange(1, len(share) + 1, device=share.device)
    return float((share.cumsum(0) / coverage).mean())


def expected_calibration_error(confidence: Tensor, correct: Tensor, num_bins: int = 15) -> float:
    """Mean distance of accuracy from confidence over bins of equal width, each weighted by its items; in [0, 1].

    Args:
        confidence: [N], in [0, 1]: the probability that each answer is right, such as the largest softmax output.
        correct: [N], 0 or 1 (or bool).
        num_bins: at least 1. A bin holds its upper edge, and the first one holds 0 too.

    Raises:
        ValueError: there is no item, or a confidence is outside [0, 1].
    """
    if confidence.numel() == 0 or not bool(((confidence >= 0) & (confidence <= 1)).all()):
        raise ValueError("confidences must be in [0, 1], and there must be one")
    confidence = confidence.double()
    place = ((confidence * num_bins).ceil().long() - 1).clamp_min(0)
    gap = torch.zeros(num_bins, dtype=torch.float64, device=place.device)
    gap.index_add_(0, place, correct.double() - confidence)
    return float(gap.abs().sum() / len(confidence))


def share_more_uncertain(general: Tensor, specific: Tensor) -> float:
    """P(general is more uncertain than specific) over pairs, in [0, 1]; a tie counts half. NaN for no pairs."""
    if general.shape != specific.shape:
        raise ValueError(f"{tuple(general.shape)} and {tuple(specific.shape)} do not pair")
    if general.numel() == 0:
        return math.nan
    return float((general > specific).double().mean() + (general == specific).double().mean() / 2)


def share_ordered(levels: Sequence[Tensor]) -> float:
    """Share of chains whose uncertainty falls strictly at every step from the first level to the last.

    Args:
        levels: one [N] tensor a level, the most general first; item i of every level forms chain i.
    """
    steps = torch.stack([general > specific for general, specific in pairwise(levels)])
    return float(steps.all(dim=0).double().mean()) if steps.shape[1] else math.nan


def uncertainty_by_level(levels: Sequence[Tensor]) -> LevelUncertainty:
    """Uncertainty of each level and its rank correlation with generality.

    Args:
        levels: one tensor of uncertainties a level, the most general first; the levels may differ in length.

    Raises:
        ValueError: a level is empty.
    """
    if any(level.numel() == 0 for level in levels):
        raise ValueError("a level holds no item")
    items = [level.double() for level in levels]
    means = [float(level.mean()) for level in items]
    generality = torch.cat([torch.full_like(level, -depth) for depth, level in enumerate(items)])
    return LevelUncertainty(
        mean=means,
        relative=[mean / means[0] for mean in means],
        low=[float(level.quantile(0.1)) / means[0] for level in items],
        high=[float(level.quantile(0.9)) / means[0] for level in items],
        spearman=spearman(torch.cat(items), generality),
    )


def similarity_std(images: Gaussian, texts: Gaussian) -> Tensor:
    """Standard deviation of z_image . z_text over independent samples of the two Gaussians, [N, M].

    Var = sum_d (mean_a^2 var_b + mean_b^2 var_a + var_a var_b), as three matrix products.

    Args:
        images: [N, D] with variances.
        texts: [M, D] with variances.
    """
    var_a, var_b = images.var, texts.var
    variance = images.mean.square() @ var_b.T + var_a @ (texts.mean.square() + var_b).T
    return variance.sqrt()
