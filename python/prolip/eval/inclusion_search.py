"""Which of M Gaussians includes each of N most, by the released one-sided test at eps 0, without all N x M tests.

In log variances l and means m, with w = v1 + 2 v2, the test of a dimension is

    -3/2 l1 - 1/2 l2 - 1/2 ln w - (m1 - m2)^2 / w.

ln w is convex in (l1, l2) and 1 / w in (v1, v2): tangents bound both from below, hence the test from above, and what
they bound it by is a few matrix products. Only pairs whose bound reaches the best test found need the test itself.

N specific items, M general ones, P pairs, D dimensions.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from prolip.gaussian import Gaussian
from prolip.pairs import official_inclusion_test_matrix

NUM_GROUPS = 8
"""Tangents touch at the mean of a group of alike general items."""
ROWS = 1024
"""Specific items whose bounds are held at a time."""
PAIRS = 2**9
"""Pairs whose tests are formed at a time."""
WORTHWHILE = 0.2
"""Share of pairs that may be left; with more, the whole matrix is formed."""
MAX_SPREAD = 30.0
"""Log variances farther than this from their dimension's mean are left to the whole matrix."""


class _Units(NamedTuple):
    """Items in units of their dimensions: log variances less `centre`, means divided by the root of e to it, [., D]."""

    mean: Tensor
    log_var: Tensor
    var: Tensor

    def rows(self, index: Tensor | slice) -> "_Units":
        return _Units(self.mean[index], self.log_var[index], self.var[index])


@torch.no_grad()
def most_including(specific: Gaussian, general: Gaussian) -> Tensor:
    """Index of the general item with the largest test for each specific one, i64 [N].

    The same as the argmax of `official_inclusion_test_matrix`, but for pairs that are equal to rounding.
    """
    centre = torch.cat([specific.log_var, general.log_var]).mean(0)
    narrow, wide = (_units(side, centre) for side in (specific, general))
    spread = max(float(side.log_var.abs().max().nan_to_num(math.inf)) for side in (narrow, wide))
    found = []
    for top in range(0, len(specific.mean), ROWS):
        rows = slice(top, top + ROWS)
        best = _best(narrow.rows(rows), wide) if spread < MAX_SPREAD else None
        if best is None:
            best = official_inclusion_test_matrix(specific.rows(rows), general).argmax(dim=1)
        found.append(best)
    return torch.cat(found)


def _units(gaussian: Gaussian, centre: Tensor) -> _Units:
    log_var = gaussian.log_var - centre
    return _Units(gaussian.mean * (-0.5 * centre).exp(), log_var, log_var.exp())


def _best(narrow: _Units, wide: _Units) -> Tensor | None:
    """The best general item of each specific one, [N]; None where the bounds leave too many."""
    bounds, slack = _bounds(narrow, wide)
    items = torch.arange(len(bounds), device=bounds.device)
    reached = _tests(narrow, wide, items, bounds.argmax(dim=1))
    left = bounds >= (reached - slack)[:, None]
    item, candidate = left.nonzero(as_tuple=True)
    if len(item) > WORTHWHILE * left.numel():
        return None
    tests = _tests(narrow, wide, item, candidate)
    highest = torch.full_like(reached, -math.inf).scatter_reduce(0, item, tests, "amax")
    # The first of equals, as argmax gives it.
    first = torch.where(tests == highest[item], candidate, len(wide.mean))
    return torch.full_like(items, len(wide.mean)).scatter_reduce(0, item, first, "amin")


def _bounds(narrow: _Units, wide: _Units) -> tuple[Tensor, float]:
    """An upper bound of every test, [N, M], and what rounding may take from it."""
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
        # 1 / w >= (2 touch - w) / touch^2, which is the sum of one part of each side.
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


def _tests(narrow: _Units, wide: _Units, item: Tensor, candidate: Tensor) -> Tensor:
    """The test of each pair less what all pairs share, [P]."""
    tests = []
    for start in range(0, len(item), PAIRS):
        one, other = narrow.rows(item[start : start + PAIRS]), wide.rows(candidate[start : start + PAIRS])
        reach = one.var + 2.0 * other.var
        distance = (one.mean - other.mean).square_().div_(reach).sum(1)
        logs = 3.0 * one.log_var.sum(1) + other.log_var.sum(1) + reach.log_().sum(1)
        tests.append(-0.5 * logs - distance)
    return torch.cat(tests)
