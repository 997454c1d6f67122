"""Ranks, correlations and bootstrap intervals, shared by all measures.

Q queries, C candidates, N items.
"""

import math
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

_BLOCK = 2**22
"""Largest number of counts (resamples times items) in a block of resamples."""


def rank_of_first_correct(scores: Tensor, correct: Tensor) -> Tensor:
    """Number of wrong candidates that score at least as high as the best correct one, i64 [Q], from 0.

    Ties count against the query, so a collapsed model (all scores equal) scores nothing. Several candidates may be
    correct (equal images, several captions of one image); they do not count against each other.

    Args:
        scores: [Q, C], larger is better.
        correct: bool [Q, C].

    Raises:
        ValueError: a score is NaN, or a query has no correct candidate.
    """
    if scores.shape != correct.shape:
        raise ValueError(f"scores {tuple(scores.shape)} and correct {tuple(correct.shape)} differ in shape")
    if bool(torch.isnan(scores).any()):
        raise ValueError("scores hold NaN")
    if not bool(correct.any(dim=1).all()):
        missing = int((~correct.any(dim=1)).nonzero()[0])
        raise ValueError(f"query {missing} has no correct candidate")
    best = scores.masked_fill(~correct, -math.inf).amax(dim=1, keepdim=True)
    return ((scores >= best) & ~correct).sum(dim=1)


def average_ranks(values: Tensor) -> Tensor:
    """Rank of each value from 0, f64 [N]; equal values get their mean rank. ValueError if one is NaN."""
    if bool(values.isnan().any()):
        raise ValueError("values with NaN have no order")
    _, inverse, counts = torch.unique(values, return_inverse=True, return_counts=True)
    counts = counts.double()
    shared: Tensor = counts.cumsum(0) - counts + (counts - 1) / 2
    return shared[inverse]


def sorted_means(keys: Tensor, values: Tensor) -> Tensor:
    """The values, [N], in ascending order of their keys, f64 [N].

    Values with equal keys are replaced by their mean. So the order of the items has no effect. ValueError if a key is
    NaN.
    """
    if bool(keys.isnan().any()):
        raise ValueError("values with NaN have no order")
    _, place, sizes = torch.unique(keys, return_inverse=True, return_counts=True)
    sums = torch.zeros(len(sizes), dtype=torch.float64, device=place.device).index_add_(0, place, values.double())
    shared: Tensor = (sums / sizes).repeat_interleave(sizes)
    return shared


def pearson(a: Tensor, b: Tensor) -> float:
    """Pearson correlation in [-1, 1]; NaN if either side is constant or has fewer than two values."""
    if a.shape != b.shape:
        raise ValueError(f"{tuple(a.shape)} and {tuple(b.shape)} values cannot be correlated")
    if a.numel() < 2 or bool((a == a[0]).all()) or bool((b == b[0]).all()):
        return math.nan
    a, b = a.double(), b.double()
    a, b = a - a.mean(), b - b.mean()
    return float((a @ b) / (a.norm() * b.norm()))


def spearman(a: Tensor, b: Tensor) -> float:
    """Spearman's rank correlation in [-1, 1]; ties get their mean rank. NaN as for `pearson`."""
    return pearson(average_ranks(a), average_ranks(b))


class Interval(NamedTuple):
    """A statistic with a bootstrap interval."""

    value: float
    """The statistic on all items."""
    low: float
    high: float


def bootstrap_interval(
    statistic: Callable[..., float], *items: Tensor, level: float = 0.95, num_resamples: int = 1000, seed: int = 0
) -> Interval:
    """A statistic and its percentile interval over resamples of the items, drawn with replacement.

    Resamples on which the statistic is NaN (a correlation of equal values) are left out. If none is left, low and high
    are NaN.

    Args:
        statistic: takes as many tensors as `items`, each [N, ...].
        items: tensors with matching rows, such as uncertainties and levels; the same rows are drawn from each.
        level: share of resamples inside the interval, above 0 and below 1.
        num_resamples: at least 1.
        seed: seed of the resampling.

    Raises:
        ValueError: there is no item, the tensors differ in length, or a setting is out of range.
    """
    if not 0 < level < 1:
        raise ValueError(f"level {level} must be between 0 and 1")
    draws = resampled(statistic, *items, num_resamples=num_resamples, seed=seed)
    return percentile_interval(statistic(*items), draws, level)


def resampled(statistic: Callable[..., float], *items: Tensor, num_resamples: int = 1000, seed: int = 0) -> Tensor:
    """The statistic on resamples of the items, f64 [num_resamples]; see `bootstrap_interval`.

    Which items are drawn depends only on their number and the seed. So two statistics of the same items, such as those
    of two models, can be subtracted resample by resample.

    Raises:
        ValueError: there is no item, the tensors differ in length, or `num_resamples` is below 1.
    """
    lengths = {len(item) for item in items}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"items of lengths {sorted(lengths)} cannot be resampled together")
    (length,) = lengths
    draws = _draws(length, num_resamples, seed)
    found = [statistic(*(item[rows.to(item.device)] for item in items)) for rows in draws]
    return torch.tensor(found, dtype=torch.float64)


def ratio_interval(
    parts: Tensor, sizes: Tensor, *, level: float = 0.95, num_resamples: int = 1000, seed: int = 0
) -> Interval:
    """Return sum(parts) / sum(sizes), both [N], with its bootstrap interval; much faster than `bootstrap_interval`.

    Raises:
        ValueError: as for `bootstrap_interval`.
    """
    parts, sizes = parts.double(), sizes.double()
    blocks = count_blocks(len(parts), num_resamples=num_resamples, seed=seed)
    draws = torch.cat([(counts @ parts) / (counts @ sizes) for counts in blocks])
    return percentile_interval(float(parts.sum() / sizes.sum()), draws, level)


def count_blocks(num_items: int, *, num_resamples: int = 1000, seed: int = 0) -> Iterator[Tensor]:
    """Yield how often each resample of `resampled` draws each item, as blocks f64 [R, N] of R resamples.

    Raises:
        ValueError: there is no item, or `num_resamples` is below 1.
    """
    if num_items < 1:
        raise ValueError("there is no item to resample")
    draws = _draws(num_items, num_resamples, seed)
    while some := list(islice(draws, max(1, _BLOCK // num_items))):
        yield torch.stack([torch.bincount(rows, minlength=num_items) for rows in some]).double()


def _draws(length: int, num_resamples: int, seed: int) -> Iterator[Tensor]:
    """Yield the items that each resample draws, i64 [N].

    Raises:
        ValueError: `num_resamples` is below 1.
    """
    if num_resamples < 1:
        raise ValueError(f"num_resamples is {num_resamples}: it must be at least 1")
    generator = torch.Generator().manual_seed(seed)
    for _ in range(num_resamples):
        yield torch.randint(length, (length,), generator=generator)


def percentile_interval(value: float, draws: Tensor, level: float = 0.95) -> Interval:
    """The value with the interval that contains the share `level` of its draws, [R]; NaN draws are left out."""
    kept = draws[~draws.isnan()].double()
    if len(kept) == 0:
        return Interval(value, math.nan, math.nan)
    # Between two infinite draws, such as of a loss, the linear interpolation is not a number.
    between = "linear" if bool(kept.isfinite().all()) else "nearest"
    places = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = kept.quantile(places, interpolation=between).tolist()
    return Interval(value, low, high)
