"""How sure a figure is: percentile intervals by resampling the items it was computed from. N items."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Interval(NamedTuple):
    """A figure and the range of what it would be on other samples of items."""

    value: float
    """On the items themselves."""
    low: float
    high: float


def bootstrap_interval(
    statistic: Callable[..., float], *items: Tensor, level: float = 0.95, num_resamples: int = 1000, seed: int = 0
) -> Interval:
    """A statistic with its percentile interval over resamples of the items, drawn with replacement.

    Resamples on which the statistic is NaN (a correlation of equal values) are left out; NaN where none is left.

    Args:
        statistic: takes as many tensors as `items`, each [N, ...].
        items: tensors whose rows belong together, such as uncertainties and levels: the same rows are drawn of all.
        level: share of resamples within the interval, above 0 and below 1.
        num_resamples: at least 1.
        seed: of the draws.

    Raises:
        ValueError: there is no item, the tensors differ in length, or a setting is out of range.
    """
    if not 0 < level < 1:
        raise ValueError(f"level {level} must be between 0 and 1")
    draws = resampled(statistic, *items, num_resamples=num_resamples, seed=seed)
    return percentile_interval(statistic(*items), draws, level)


def resampled(statistic: Callable[..., float], *items: Tensor, num_resamples: int = 1000, seed: int = 0) -> Tensor:
    """The statistic on resamples of the items, f64 [num_resamples]; see `bootstrap_interval`.

    Which items are drawn depends on their number and the seed alone: two statistics of the same items, such as two
    models' figures, can be subtracted draw by draw.

    Raises:
        ValueError: there is no item, the tensors differ in length, or `num_resamples` is below 1.
    """
    lengths = {len(item) for item in items}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"items of lengths {sorted(lengths)} cannot be resampled together")
    if num_resamples < 1:
        raise ValueError(f"num_resamples is {num_resamples}: it must be at least 1")
    (length,) = lengths
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(num_resamples):
        rows = torch.randint(length, (length,), generator=generator)
        found.append(statistic(*(item[rows.to(item.device)] for item in items)))
    return torch.tensor(found, dtype=torch.float64)


def percentile_interval(value: float, draws: Tensor, level: float = 0.95) -> Interval:
    """The value with the range that holds the share `level` of its draws; NaN draws are left out."""
    kept = draws[~draws.isnan()].double()
    if len(kept) == 0:
        return Interval(value, math.nan, math.nan)
    low, high = kept.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)).tolist()
    return Interval(value, low, high)
