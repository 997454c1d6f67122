"""Inclusion of every one of N Gaussians in every one of M: matrices in blocks.

The logarithm does not factorise over pairs, so every pair costs work for each of D dimensions. A block of pairs is
small enough for a CPU's cache, its buffers are used again, and one logarithm is taken of a product of many dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from prolip.gaussian import LOG_2, Gaussian, inclusion_score, official_inclusion_test

_LINEAR_RANGE = 30.0
"""Log variances nearer to their dimension's mean than this leave single precision its digits as variances."""
_LOG_PRODUCT = 60.0
"""Products of factors stay between e to the minus this and e to this, whatever the floating type."""
_CPU_BLOCK = 2**18
_DEVICE_BLOCK = 2**26


def inclusion_matrix(specific: Gaussian, general: Gaussian, *, block: int | None = None) -> Tensor:
    """H summed over dimensions for every pair, [N, M], in blocks of about `block` pairs times dimensions.

    `prolip.gaussian.inclusion_score` for pairs. No gradient is kept.
    """
    return _matrix(inclusion_score, _inclusion_block, specific, general, block)


def official_inclusion_test_matrix(
    specific: Gaussian, general: Gaussian, eps: float = 0.0, *, block: int | None = None
) -> Tensor:
    """The released one-sided test summed over dimensions for every pair, [N, M] (the HierarCaps script's measure).

    `prolip.gaussian.official_inclusion_test` for pairs. No gradient is kept.
    """
    score, kernel = partial(official_inclusion_test, eps=eps), partial(_official_block, eps=eps)
    return _matrix(score, kernel, specific, general, block)


class _Side(NamedTuple):
    """Gaussians in units of their dimensions: variances relative to e to the `centre` of all log variances, [D]."""

    mean: Tensor
    """[N, D], divided by the square root of that unit."""
    var: Tensor
    """[N, D]"""
    log_var: Tensor
    """[N], sum over dimensions of log variances less the centre: the sums themselves would lose digits."""

    def rows(self, index: slice) -> _Side:
        return _Side(self.mean[index], self.var[index], self.log_var[index])


class _Buffers(NamedTuple):
    """Two blocks of numbers that are overwritten, [R, C, D], and what holds for all blocks."""

    first: Tensor
    second: Tensor
    spread: float
    """Largest distance of a log variance from its centre."""
    centre: float
    """Sum of the centres."""


_Kernel = Callable[[_Side, _Side, _Buffers], Tensor]


@torch.no_grad()
def _matrix(
    score: Callable[[Gaussian, Gaussian], Tensor],
    kernel: _Kernel,
    specific: Gaussian,
    general: Gaussian,
    block: int | None,
) -> Tensor:
    """A score per dimension, summed over dimensions for every pair, [N, M].

    `kernel` gives a block of the sums from variances in the linear domain; where their range is too wide for that
    (points, whose log variance is minus infinity, among them), `score` takes over.
    """
    num_rows, num_columns, dim = len(specific.mean), len(general.mean), specific.mean.shape[-1]
    sums = specific.mean.new_zeros(num_rows, num_columns)
    if sums.numel() == 0:
        return sums
    if block is None:
        block = _CPU_BLOCK if sums.device.type == "cpu" else _DEVICE_BLOCK
    columns = max(1, min(num_columns, block // dim))
    rows = max(1, min(num_rows, block // (dim * columns)))
    logs = torch.cat([specific.log_var, general.log_var])
    centre = logs.mean(0)
    spread = float((logs - centre).abs().max().nan_to_num(math.inf))
    narrow, wide = (_side(side, centre) for side in (specific, general))
    shape = (2, rows, columns, dim) if spread < _LINEAR_RANGE else (2, 0, 0, 0)
    first, second = sums.new_empty(shape)
    for top in range(0, num_rows, rows):
        for left in range(0, num_columns, columns):
            here, there = slice(top, top + rows), slice(left, left + columns)
            if spread < _LINEAR_RANGE:
                one, other = narrow.rows(here), wide.rows(there)
                part = (slice(len(one.mean)), slice(len(other.mean)))
                found = kernel(one, other, _Buffers(first[part], second[part], spread, float(centre.sum())))
            else:
                some, others = specific.rows(here), general.rows(there)
                found = score(Gaussian(some.mean[:, None], some.log_var[:, None]), others).sum(-1)
            sums[here, there] = found
    return sums


def _side(gaussian: Gaussian, centre: Tensor) -> _Side:
    relative = gaussian.log_var - centre
    return _Side(gaussian.mean * (-0.5 * centre).exp(), relative.exp(), relative.sum(-1))


def _inclusion_block(narrow: _Side, wide: _Side, buffers: _Buffers) -> Tensor:
    inner, outer = buffers.first, buffers.second
    torch.add(2.0 * narrow.var[:, None], wide.var, out=inner)
    torch.add(narrow.var[:, None], 2.0 * wide.var, out=outer)
    logs = _sum_of_logs(inner / outer, LOG_2)
    torch.mul(inner, outer, out=outer)
    torch.sub(narrow.mean[:, None], wide.mean, out=inner)
    inner.square_().div_(outer)
    torch.sub(wide.var, narrow.var[:, None], out=outer)
    distance = inner.mul_(outer).sum(-1)
    return 0.5 * (wide.log_var - narrow.log_var[:, None] + logs) + distance


def _official_block(narrow: _Side, wide: _Side, buffers: _Buffers, eps: float) -> Tensor:
    squares, outer = buffers.first, buffers.second
    torch.add(narrow.var[:, None], 2.0 * wide.var, out=outer)
    torch.sub(narrow.mean[:, None], wide.mean, out=squares)
    distance = squares.square_().div_(outer).sum(-1)
    logs = _sum_of_logs(outer, buffers.spread + math.log(3.0))
    # -3/2 l1 - 1/2 l2 - 1/2 ln(v1 + 2 v2), each log variance being its centre and what it has beyond.
    constant = 0.5 * (LOG_2 - eps) * outer.shape[-1] - 2.5 * buffers.centre
    log_vars = 1.5 * narrow.log_var[:, None] + 0.5 * wide.log_var
    return constant - log_vars - 0.5 * logs - math.exp(eps) * distance


def _sum_of_logs(factors: Tensor, largest: float) -> Tensor:
    """Sum over the last axis of logarithms, none of which is larger than `largest` in magnitude, [..., D] to [...].

    Halves are multiplied, in place, as often as their products keep within bounds.
    """
    folds = int(math.log2(max(1.0, _LOG_PRODUCT / largest)))
    while folds > 0 and factors.shape[-1] > 1 and factors.shape[-1] % 2 == 0:
        half = factors.shape[-1] // 2
        factors = factors[..., :half].mul_(factors[..., half:])
        folds -= 1
    return factors.log().sum(-1)
