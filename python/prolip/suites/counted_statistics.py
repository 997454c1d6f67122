"""Statistics on many resamples at once, from how often each resample drew each item: the same values, much faster.

N items, R resamples, U distinct values. `counts` is f64 [R, N], `items` f64 [N], `groups` i64 [N]; results are f64 [R].
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from prolip.eval.statistics import count_blocks
from prolip.suites.row_statistics import Statistic

Counted = Callable[[Tensor, Tensor, Tensor], Tensor]


def mean(items: Tensor, groups: Tensor, counts: Tensor) -> Tensor:
    """`row_statistics.mean`."""
    return counts @ items / counts.sum(dim=1)


def auroc(items: Tensor, groups: Tensor, counts: Tensor) -> Tensor:
    """`prolip.decisions.auroc`; NaN where a resample lacks a kind."""
    positive, negative = (_by_value(items, counts * kind) for kind in (groups.double(), 1 - groups.double()))
    below = negative.cumsum(dim=1) - negative / 2
    return (positive * below).sum(dim=1) / (positive.sum(dim=1) * negative.sum(dim=1))


def risk_coverage(items: Tensor, groups: Tensor, counts: Tensor) -> Tensor:
    """`prolip.eval.uncertainty.area_under_risk_coverage`.

    Of c equal values after n smaller ones, of which w are wrong, the k-th adds (w + share k) / (n + k). The sum over k
    is w (H(n + c) - H(n)) + share (c - n (H(n + c) - H(n))), with the harmonic numbers H.
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
    """`prolip.decisions.excess_risk_coverage`."""
    best = risk_coverage(1 - groups.double(), groups, counts)
    return risk_coverage(items, groups, counts) - best


COUNTED: Mapping[Statistic, Counted] = {
    "mean": mean,
    "auroc": auroc,
    "risk_coverage": risk_coverage,
    "excess_risk_coverage": excess_risk_coverage,
}


def counted(statistic: Counted, items: Tensor, groups: Tensor, *, num_resamples: int, seed: int) -> Tensor:
    """The statistic on the resamples that `prolip.eval.statistics.resampled` draws, f64 [R]."""
    blocks = count_blocks(len(items), num_resamples=num_resamples, seed=seed)
    return torch.cat([statistic(items, groups, counts) for counts in blocks])


def _by_value(items: Tensor, counts: Tensor) -> Tensor:
    """The counts of equal items added up, in ascending order of the items, f64 [R, U]."""
    values, place = torch.unique(items, return_inverse=True)
    return counts.new_zeros(len(counts), len(values)).index_add_(1, place, counts)
