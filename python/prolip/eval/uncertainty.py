"""What the variances say: uncertainty against accuracy, and by level of generality (SPEC §9).

An item's uncertainty is the sum of its variances over dimensions. N items.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from prolip.eval.ranks import pearson, spearman
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
