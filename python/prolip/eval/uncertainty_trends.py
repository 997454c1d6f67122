"""What uncertainty goes with: the length of a caption, its level of a hierarchy, and how it is spread. N items."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prolip.eval.statistics import Interval, bootstrap_interval, spearman
from prolip.eval.uncertainty import share_ordered


@dataclass(frozen=True, kw_only=True)
class LengthTrend:
    """Uncertainty by length; one entry a length that occurs, the shortest first."""

    length: list[int]
    num_items: list[int]
    mean: list[float]
    spearman: Interval
    """Rank correlation of uncertainty with length; negative: longer captions are more certain."""


@dataclass(frozen=True, kw_only=True)
class LevelTrend:
    """Uncertainty along chains of L levels, the most general first."""

    mean: list[float]
    spearman: Interval
    """Rank correlation of uncertainty with generality; 1: more general is always more uncertain."""
    share_ordered: Interval
    """Share of chains whose uncertainty falls at every step."""


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Counts of pictures and captions in the same bins of uncertainty."""

    edges: list[float]
    """One more than bins; equally far apart in the logarithm. A bin holds its lower edge, the last one both."""
    images: list[int]
    texts: list[int]


def uncertainty_by_length(
    uncertainty: Tensor, length: Tensor, *, num_resamples: int = 1000, seed: int = 0
) -> LengthTrend:
    """Mean uncertainty of each length, and the rank correlation with a bootstrap interval over items.

    Args:
        uncertainty: [N], sum of variances.
        length: i64 [N], such as tokens or words; not negative.
        num_resamples: of the interval.
        seed: of its draws.

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


def uncertainty_along_chains(uncertainty: Tensor, *, num_resamples: int = 1000, seed: int = 0) -> LevelTrend:
    """Mean uncertainty of each level and how well the levels order it, with bootstrap intervals over chains.

    Args:
        uncertainty: [N, L], sum of variances; a row is a chain from the most general item to the most specific one.
        num_resamples: of the intervals.
        seed: of their draws.

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


def uncertainty_histogram(images: Tensor, texts: Tensor, num_bins: int = 50) -> Histogram:
    """Both kinds' uncertainties counted in the same bins, which cover them all.

    Args:
        images: [N], sums of variances, positive.
        texts: [M], likewise.
        num_bins: at least 1.

    Raises:
        ValueError: a side is empty, or an uncertainty is not positive (points have none to count).
    """
    logs = [side.double().log() for side in (images, texts)]
    joined = torch.cat(logs)
    if min(map(len, logs)) == 0 or not bool(joined.isfinite().all()):
        raise ValueError("there must be pictures and captions, with positive uncertainties")
    low, high = float(joined.min()), float(joined.max())
    high = high if high > low else low + 1e-9
    width = (high - low) / num_bins
    counts = [
        torch.bincount(((side - low) / width).long().clamp(0, num_bins - 1), minlength=num_bins).tolist()
        for side in logs
    ]
    edges = (low + width * torch.arange(num_bins + 1, dtype=torch.float64)).exp().tolist()
    return Histogram(edges=edges, images=counts[0], texts=counts[1])


def count_words(captions: Sequence[str]) -> Tensor:
    """Words of each caption, i64 [N]: a length that no tokenizer decides."""
    return torch.tensor([len(caption.split()) for caption in captions], dtype=torch.int64)
