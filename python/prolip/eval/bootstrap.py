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
    lengths = {len(item) for item in items}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"items of lengths {sorted(lengths)} cannot be resampled together")
    if not 0 < level < 1 or num_resamples < 1:
        raise ValueError(f"level {level} must be between 0 and 1, and num_resamples {num_resamples} at least 1")
    (length,) = lengths
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(num_resamples):
        rows = torch.randint(length, (length,), generator=generator)
        found.append(statistic(*(item[rows.to(item.device)] for item in items)))
    kept = torch.tensor([value for value in found if not math.isnan(value)], dtype=torch.float64)
    if len(kept) == 0:
        return Interval(statistic(*items), math.nan, math.nan)
    low, high = kept.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)).tolist()
    return Interval(statistic(*items), low, high)
