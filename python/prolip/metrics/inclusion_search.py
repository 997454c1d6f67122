"""Find the general item that includes each specific item most, without scoring every pair.

The score is the released one-sided inclusion test at eps 0. For log variances l, means m and w = v1 + 2 v2, a
dimension contributes

    -3/2 l1 - 1/2 l2 - 1/2 ln w - (m1 - m2)^2 / w.

ln w is convex in (l1, l2), and 1 / w is convex in (v1, v2). Tangents bound both from below, and the test from above, by
a few matrix products. Only pairs whose bound reaches the best test so far are tested.

N specific items, M general items, P pairs, D dimensions.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from prolip.gaussian import Gaussian, official_inclusion_test_matrix

NUM_GROUPS = 8
"""Groups of similar general items; a tangent touches at each group's mean."""
ROWS = 1024
"""Specific items whose bounds are in memory at a time."""
PAIRS = 2**9
"""Pairs that are tested at a time."""
WORTHWHILE = 0.2
"""Maximum share of pairs to test one by one; beyond it the whole matrix is faster."""
MAX_SPREAD = 30.0
"""Maximum distance of a log variance from its dimension's mean; beyond it the whole matrix is formed."""


class _Scaled(NamedTuple):
    """Items in units of each dimension: log variances minus `centre`, means divided by exp(centre / 2)."""

    mean: Tensor
    """[N, D]"""
    log_var: Tensor
    """[N, D]"""
    var: Tensor
    """[N, D]"""

    def rows(self, index: Tensor | slice) -> "_Scaled":
        return _Scaled(self.mean[index], self.log_var[index], self.var[index])


@torch.no_grad()
def most_including(specific: Gaussian, general: Gaussian) -> Tensor:
    """Index of the general item, [M, D], with the largest test for each specific item, [N, D], i64 [N].

    Equals the argmax of `official_inclusion_test_matrix`, except between items that differ by rounding alone.
    """
    centre = torch.cat([specific.log_var, general.log_var]).mean(0)
    narrow, wide = (_scaled(side, centre) for side in (specific, general))
    spread = max(float(side.log_var.abs().max().nan_to_num(math.inf)) for side in (narrow, wide))
    found = []
    for top in range(0, len(specific.mean), ROWS):
        rows = slice(top, top + ROWS)
        with torch.autocast(centre.device.type, enabled=False):
            best = _best(narrow.rows(rows), wide) if spread < MAX_SPREAD else None
        if best is None:
            best = official_inclusion_test_matrix(specific.rows(rows), general).argmax(dim=1)
        found.append(best)
    return torch.cat(found)


def _scaled(gaussian: Gaussian, centre: Tensor) -> _Scaled:
    log_var = gaussian.log_var - centre
    return _Scaled(gaussian.mean * (-0.5 * centre).exp(), log_var, log_var.exp())


def _best(narrow: _Scaled, wide: _Scaled) -> Tensor | None:
    """The best general item of each specific one, [N]; None if the bounds leave too many pairs to test."""
    bounds, slack = _bounds(narrow, wide)
    items = torch.arange(len(bounds), device=bounds.device)
    reached = _tests(narrow, wide, items, bounds.argmax(dim=1))
    left = bounds >= (reached - slack)[:, None]
    item, candidate = left.nonzero(as_tuple=True)
    if len(item) > WORTHWHILE * left.numel():
        return None
    tests = _tests(narrow, wide, item, candidate)
    highest = torch.full_like(reached, -math.inf).scatter_reduce(0, item, tests, "amax")
    # The first of equals, as argmax.
    first = torch.where(tests == highest[item], candidate, len(wide.mean))
    return torch.full_like(items, len(wide.mean)).scatter_reduce(0, item, first, "amin")


def _bounds(narrow: _Scaled, wide: _Scaled) -> tuple[Tensor, float]:
    """An upper bound of every test, [N, M], and the largest rounding error of a bound."""
    bounds = narrow.mean.new_empty(len(narrow.mean), len(wide.mean))
    here = narrow.log_var.mean(0)
    scale = 0.0
    for index in wide.log_var.mean(1).argsort().chunk(NUM_GROUPS):
        group = wide.rows(index)
        there = group.log_var.mean(0)
        touch = here.exp() + 2.0 * there.exp()
        share = here.exp() / touch
        row = -1.5 * narrow.log_var.sum(1) - 0.5 * (narrow.log_var - here) @ share
        column = -0.5 * group.log_var.sum(1) - 0.5 * (group.log_var - there) @ (1.0 - share)
        # 1 / w >= (2 touch - w) / touch^2, a sum of one part per side.
        left, right = (2.0 * touch - narrow.var) / touch.square(), -2.0 * group.var / touch.square()
        row_part, column_part = narrow.mean.square() * left, group.mean.square() * right
        row = row - row_part.sum(1) - 0.5 * touch.log().sum()
        column = column - column_part.sum(1)
        first = torch.cat([narrow.mean * left, narrow.mean], 1) @ torch.cat([group.mean, group.mean * right], 1).T
        second = torch.cat([left, narrow.mean.square()], 1) @ torch.cat([group.mean.square(), right], 1).T
        bounds[:, index] = row[:, None] + column + 2.0 * first - second
        sizes = (row, column, row_part.abs().sum(1), column_part.abs().sum(1), first, second)
        scale = max(scale, *(float(size.abs().max()) for size in sizes))
    return bounds, 256 * torch.finfo(bounds.dtype).eps * scale


def _tests(narrow: _Scaled, wide: _Scaled, item: Tensor, candidate: Tensor) -> Tensor:
    """The test of each pair without the constant that all pairs share, [P]."""
    tests = []
    for start in range(0, len(item), PAIRS):
        one, other = narrow.rows(item[start : start + PAIRS]), wide.rows(candidate[start : start + PAIRS])
        reach = one.var + 2.0 * other.var
        distance = (one.mean - other.mean).square_().div_(reach).sum(1)
        logs = 3.0 * one.log_var.sum(1) + other.log_var.sum(1) + reach.log_().sum(1)
        tests.append(-0.5 * logs - distance)
    return torch.cat(tests)
