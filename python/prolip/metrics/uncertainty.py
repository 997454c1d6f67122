"""Uncertainty against accuracy, caption length and level of generality (docs/specification.md, section 9).

An item's uncertainty is the sum of its variances over dimensions. N items.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from prolip.errors import UserError
from prolip.gaussian import Gaussian, dot_products
from prolip.metrics.statistics import Interval, bootstrap_interval, pearson, sorted_means, spearman

# ---------------------------------------------------------------------------------------------------------------------
# Uncertainty and accuracy
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class AccuracyBins:
    """Accuracy in bins of equal size, the most certain items first."""

    accuracy: list[float]
    """Share of correct items per bin, in [0, 1]."""
    mean_uncertainty: list[float]
    """Mean uncertainty per bin."""
    bin_size: int
    """Items per bin."""
    num_dropped: int
    """The remainder of N / bins: the most uncertain items, left out as in the published measure."""
    pearson: float
    """Correlation of accuracy with the bin's number; negative is good. NaN if all bins are equal."""


def uncertainty_bins(uncertainty: Tensor, correct: Tensor, num_bins: int = 10) -> AccuracyBins:
    """Accuracy by uncertainty: items in ascending order, bins of floor(N / num_bins), the remainder dropped.

    Equally uncertain items count with their mean accuracy, so the order of the items has no effect. If all are equally
    uncertain, as points are, so is every bin.

    Args:
        uncertainty: [N], sum of variances.
        correct: [N], 0 or 1 (or bool).
        num_bins: at least 1.

    Raises:
        UserError: fewer items than bins.
        ValueError: the two differ in shape, or an uncertainty is NaN.
    """
    if uncertainty.shape != correct.shape or bool(uncertainty.isnan().any()):
        raise ValueError("uncertainty and correct must have one number per item, and none may be NaN")
    size = len(uncertainty) // num_bins
    if size == 0:
        raise UserError(f"num_bins is {num_bins}: there are only {len(uncertainty)} items")
    accuracy, mean_uncertainty = (
        some[: size * num_bins].view(num_bins, size).mean(dim=1)
        for some in (sorted_means(uncertainty, correct), uncertainty.double().sort().values)
    )
    return AccuracyBins(
        accuracy=accuracy.tolist(),
        mean_uncertainty=mean_uncertainty.tolist(),
        bin_size=size,
        num_dropped=len(uncertainty) - size * num_bins,
        pearson=pearson(accuracy, torch.arange(num_bins, device=accuracy.device)),
    )


def area_under_risk_coverage(uncertainty: Tensor, correct: Tensor) -> float:
    """Mean, over k = 1..N, of the share of wrong items among the k most certain ones; in [0, 1], small is good.

    Equally uncertain items are averaged over all their orders, so a constant uncertainty scores the error rate.

    Args:
        uncertainty: [N], larger is less certain.
        correct: [N], 0 or 1 (or bool).

    Raises:
        ValueError: there is no item.
    """
    if uncertainty.numel() == 0:
        raise ValueError("risk and coverage need at least one item")
    wrong = sorted_means(uncertainty, 1 - correct.double())
    coverage = torch.arange(1, len(wrong) + 1, device=wrong.device)
    return float((wrong.cumsum(0) / coverage).mean())


def expected_calibration_error(confidence: Tensor, correct: Tensor, num_bins: int = 15) -> float:
    """Mean distance of accuracy from confidence over bins of equal width, weighted by items per bin; in [0, 1].

    Args:
        confidence: [N], in [0, 1]: the probability that each answer is right, such as the largest softmax output.
        correct: [N], 0 or 1 (or bool).
        num_bins: at least 1. A bin includes its upper edge; the first one also includes 0.

    Raises:
        ValueError: there is no item, or a confidence is outside [0, 1].
    """
    if confidence.numel() == 0 or not bool(((confidence >= 0) & (confidence <= 1)).all()):
        raise ValueError("confidences must be in [0, 1], and there must be at least one")
    confidence = confidence.double()
    place = ((confidence * num_bins).ceil().long() - 1).clamp_min(0)
    gap = torch.zeros(num_bins, dtype=torch.float64, device=place.device)
    gap.index_add_(0, place, correct.double() - confidence)
    return float(gap.abs().sum() / len(confidence))


def similarity_std(images: Gaussian, texts: Gaussian) -> Tensor:
    """Standard deviation of z_image . z_text over independent samples of both Gaussians, [N, D] and [M, D], [N, M].

    In float32 at least. Var = sum_d (mean_a^2 var_b + mean_b^2 var_a + var_a var_b), as two matrix products.
    """
    images, texts = images.at_least_float32(), texts.at_least_float32()
    var_a, var_b = images.var, texts.var
    variance = dot_products(images.mean.square(), var_b) + dot_products(var_a, texts.mean.square() + var_b)
    return variance.sqrt()


class CosineMoments(NamedTuple):
    """Mean and variance of the cosine of every pair, [N, M]."""

    mean: Tensor
    var: Tensor


def cosine_moments(images: Gaussian, texts: Gaussian) -> CosineMoments:
    """Approximate mean and variance of the cosine between independent samples of two Gaussians, in float32 at least.

    The moments of the dot product are divided by those of the lengths: mean_a . mean_b / (l_a l_b) and
    Var(z_a . z_b) / (l_a l_b)^2, with the expected squared length l_a^2 = mean_a . mean_a + total_var_a (BayesVLM,
    arXiv:2412.06014). The variance is too large where the cosine is near 1: variance along the mean changes the length
    and not the cosine.

    Args:
        images: [N, D] with variances.
        texts: [M, D] with variances.
    """
    images, texts = images.at_least_float32(), texts.at_least_float32()
    lengths = [(one.mean.square().sum(-1) + one.total_var).sqrt() for one in (images, texts)]
    product = lengths[0][:, None] * lengths[1]
    mean = dot_products(images.mean, texts.mean) / product
    return CosineMoments(mean, similarity_std(images, texts).square() / product.square())


# ---------------------------------------------------------------------------------------------------------------------
# Uncertainty and generality
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class LevelUncertainty:
    """Uncertainty by level of generality, the most general level first."""

    mean: list[float]
    """Mean uncertainty per level."""
    relative: list[float]
    """`mean` divided by that of the most general level; NaN if that is 0."""
    low: list[float]
    """10th percentile, relative to the most general level's mean."""
    high: list[float]
    """90th percentile, relative to the most general level's mean."""
    spearman: float
    """Rank correlation of uncertainty with generality over all items. 1: a more general item is always more
    uncertain."""


@dataclass(frozen=True, kw_only=True)
class LevelTrend:
    """Uncertainty along chains of L levels, the most general level first."""

    mean: list[float]
    """Mean uncertainty per level."""
    spearman: Interval
    """Rank correlation of uncertainty with generality. 1: a more general item is always more uncertain."""
    share_ordered: Interval
    """Share of chains whose uncertainty falls at every step."""


def more_uncertain(general: Tensor, specific: Tensor) -> Tensor:
    """1 where the general item is the more uncertain one, 1/2 where both are equally uncertain, else 0, f64 [N]."""
    if general.shape != specific.shape:
        raise ValueError(f"{tuple(general.shape)} and {tuple(specific.shape)} do not pair")
    return (general > specific).double() + (general == specific).double() / 2


def share_more_uncertain(general: Tensor, specific: Tensor) -> float:
    """Share of pairs whose general item is the more uncertain one, in [0, 1]; a tie counts half. NaN without pairs."""
    return float(more_uncertain(general, specific).mean())


def share_ordered(levels: Sequence[Tensor]) -> float:
    """Share of chains whose uncertainty falls strictly at every step from the first level to the last.

    NaN with one level, from which there is no step.

    Args:
        levels: one [N] tensor per level, the most general first; item i of every level forms chain i.
    """
    if len(levels) < 2:
        return math.nan
    steps = torch.stack([general > specific for general, specific in pairwise(levels)])
    return float(steps.all(dim=0).double().mean())


def uncertainty_by_level(levels: Sequence[Tensor]) -> LevelUncertainty:
    """Uncertainty of each level, and its rank correlation with generality.

    Args:
        levels: one [N] tensor of uncertainties per level, the most general first; levels may differ in N.

    Raises:
        ValueError: a level is empty.
    """
    if any(level.numel() == 0 for level in levels):
        raise ValueError("a level has no item")
    items = [level.double() for level in levels]
    means = [float(level.mean()) for level in items]
    generality = torch.cat([torch.full_like(level, -depth) for depth, level in enumerate(items)])
    return LevelUncertainty(
        mean=means,
        relative=[_ratio(mean, means[0]) for mean in means],
        low=[_ratio(float(level.quantile(0.1)), means[0]) for level in items],
        high=[_ratio(float(level.quantile(0.9)), means[0]) for level in items],
        spearman=spearman(torch.cat(items), generality),
    )


def _ratio(value: float, unit: float) -> float:
    return value / unit if unit > 0 else math.nan


def uncertainty_along_chains(uncertainty: Tensor, *, num_resamples: int = 1000, seed: int = 0) -> LevelTrend:
    """Mean uncertainty of each level, and how well it follows the levels, with bootstrap intervals over chains.

    Args:
        uncertainty: [N, L], sum of variances; a row is a chain from the most general item to the most specific one.
        num_resamples: bootstrap resamples.
        seed: seed of the resampling.

    Raises:
        ValueError: there is no chain.
    """
    generality = -torch.arange(uncertainty.shape[1], device=uncertainty.device).double()

    def correlation(rows: Tensor) -> float:
        return spearman(rows.flatten(), generality.expand_as(rows).flatten())

    def ordered(rows: Tensor) -> float:
        return share_ordered(list(rows.T))

    rows = uncertainty.double()
    first, second = (
        bootstrap_interval(statistic, rows, num_resamples=num_resamples, seed=seed)
        for statistic in (correlation, ordered)
    )
    return LevelTrend(mean=rows.mean(dim=0).tolist(), spearman=first, share_ordered=second)


# ---------------------------------------------------------------------------------------------------------------------
# Uncertainty and length
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class LengthTrend:
    """Uncertainty by length; one entry per length that occurs, the shortest first."""

    length: list[int]
    num_items: list[int]
    """Items of each length."""
    mean: list[float]
    """Mean uncertainty of each length."""
    spearman: Interval
    """Rank correlation of uncertainty with length; negative: longer captions are more certain."""


def uncertainty_by_length(
    uncertainty: Tensor, length: Tensor, *, num_resamples: int = 1000, seed: int = 0
) -> LengthTrend:
    """Mean uncertainty of each length, and the rank correlation with a bootstrap interval over items.

    Args:
        uncertainty: [N], sum of variances.
        length: i64 [N], such as tokens or words; at least 0.
        num_resamples: bootstrap resamples.
        seed: seed of the resampling.

    Raises:
        ValueError: there is no item.
    """
    interval = bootstrap_interval(
        spearman, uncertainty.double(), length.double(), num_resamples=num_resamples, seed=seed
    )
    counts = torch.bincount(length)
    sums = torch.bincount(length, weights=uncertainty.double())
    (occurring,) = counts.nonzero(as_tuple=True)
    return LengthTrend(
        length=occurring.tolist(),
        num_items=counts[occurring].tolist(),
        mean=(sums[occurring] / counts[occurring]).tolist(),
        spearman=interval,
    )


def count_words(captions: Sequence[str]) -> Tensor:
    """Words of each caption, i64 [N]: a length that does not depend on a tokenizer."""
    return torch.tensor([len(caption.split()) for caption in captions], dtype=torch.int64)
