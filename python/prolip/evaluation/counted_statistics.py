"""Statistics on many resamples at once, from the count of each item in each resample: the same values, much faster.

N items, R resamples, U distinct values. `counts` is f64 [R, N], `items` f64 [N], `groups` i64 [N]; results are f64 [R].
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from prolip.evaluation.row_statistics import Statistic
from prolip.metrics.statistics import count_blocks

Counted = Callable[[Tensor, Tensor, Tensor], Tensor]


def mean(items: Tensor, groups: Tensor, counts: Tensor) -> Tensor:
    """`row_statistics.mean` of each resample."""
    return counts @ items / counts.sum(dim=1)


def mean_of_chosen(items: Tensor, groups: Tensor, counts: Tensor) -> Tensor:
    """`row_statistics.mean_of_chosen` of each resample."""
    chosen = counts * groups.double()
    return chosen @ items / chosen.sum(dim=1)


def auroc(items: Tensor, groups: Tensor, counts: Tensor) -> Tensor:
    """`prolip.decisions.auroc` of each resample; NaN if it lacks one of the two kinds."""
    positive, negative = (_by_value(items, counts * kind) for kind in (groups.double(), 1 - groups.double()))
    below = negative.cumsum(dim=1) - negative / 2
    return (positive * below).sum(dim=1) / (positive.sum(dim=1) * negative.sum(dim=1))


def risk_coverage(items: Tensor, groups: Tensor, counts: Tensor) -> Tensor:
    """`prolip.metrics.uncertainty.area_under_risk_coverage` of each resample.

    Take c equal values, of which `share` are wrong, after n smaller values, of which w are wrong. The k-th of them adds
    (w + share k) / (n + k). The sum over k is w (H(n + c) - H(n)) + share (c - n (H(n + c) - H(n))), with the harmonic
    numbers H.
    """
    count = _by_value(items, counts)
    wrong = _by_value(items, counts * (1 - groups.double()))
    before, wrong_before = count.cumsum(dim=1) - count, wrong.cumsum(dim=1) - wrong
    total = int(counts[0].sum())
    harmonic = torch.cat([counts.new_zeros(1), (1 / torch.arange(1, total + 1, dtype=torch.float64)).cumsum(0)])
    steps = harmonic[(before + count).long()] - harmonic[before.long()]
    share = torch.where(count > 0, wrong / count, 0.0)
    return (wrong_before * steps + share * (count - before * steps)).sum(dim=1) / total


def excess_risk_coverage(items: Tensor, groups: Tensor, counts: Tensor) -> Tensor:
    """`prolip.decisions.excess_risk_coverage` of each resample."""
    best = risk_coverage(1 - groups.double(), groups, counts)
    return risk_coverage(items, groups, counts) - best


COUNTED: Mapping[Statistic, Counted] = {
    "mean": mean,
    "mean_of_chosen": mean_of_chosen,
    "auroc": auroc,
    "risk_coverage": risk_coverage,
    "excess_risk_coverage": excess_risk_coverage,
}


def counted(statistic: Counted, items: Tensor, groups: Tensor, *, num_resamples: int, seed: int) -> Tensor:
    """Return the statistic on the resamples that `prolip.metrics.statistics.resampled` draws, f64 [R]."""
    blocks = count_blocks(len(items), num_resamples=num_resamples, seed=seed)
    return torch.cat([statistic(items, groups, counts) for counts in blocks])


def _by_value(items: Tensor, counts: Tensor) -> Tensor:
    """Add up the counts of equal items, in ascending order of the items, f64 [R, U]."""
    values, place = torch.unique(items, return_inverse=True)
    return counts.new_zeros(len(counts), len(values)).index_add_(1, place, counts)
