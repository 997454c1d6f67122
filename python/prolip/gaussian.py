"""Diagonal Gaussians and every closed form between them, as pure functions.

N/M items, D embedding. Functions take natural log variances, never standard deviations. The formulas are those of
ProLIP (arXiv:2410.18857). Where the released code differs, `official_...` repeats it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from prolip.errors import UserError

__all__ = [
    "LOG_2PI",
    "Gaussian",
    "concatenate",
    "csd",
    "csd_logits",
    "dot_products",
    "inclusion_matrix",
    "inclusion_score",
    "kl_to_standard",
    "log_integral",
    "official_inclusion_score",
    "official_inclusion_test",
    "official_inclusion_test_matrix",
    "official_kl_to_standard",
]

LOG_2PI = math.log(2.0 * math.pi)
_LOG_2 = math.log(2.0)


class Gaussian(NamedTuple):
    """Diagonal Gaussians, one per row of the leading axes.

    An index selects items, as in a tensor: `gaussian[:10]`, `gaussian[mask]`. Unpacking and `len` are the tuple's:
    `mean, log_var = gaussian`.
    """

    mean: Tensor
    """[..., D]; unit norm, except raw means."""
    log_var: Tensor
    """[..., D]; natural log of the variance, minus infinity for a point (variance 0)."""

    @classmethod
    def point(cls, mean: Tensor) -> Gaussian:
        """Of zero variance, as from a model without an uncertainty token."""
        return cls(mean, mean.new_full((), -math.inf).expand_as(mean))

    def __getitem__(self, index: Any) -> Gaussian:  # type: ignore[override]
        """Items at `index` of the leading axes: a number, a slice, a mask or a tensor of numbers."""
        return Gaussian(self.mean[index], self.log_var[index])

    def __repr__(self) -> str:
        """Shape, type, device and mean uncertainty."""
        mean = self.mean
        unsure = "" if mean.is_meta else f", mean uncertainty {self.uncertainty.float().mean():.4g}"
        return f"Gaussian({list(mean.shape)}, {mean.dtype}, {mean.device}{unsure})"

    @property
    def var(self) -> Tensor:
        """Variances, [..., D]."""
        return self.log_var.exp()

    @property
    def total_var(self) -> Tensor:
        """Sum of variances over dimensions, [...]: an item's uncertainty."""
        return self.log_var.exp().sum(-1)

    @property
    def uncertainty(self) -> Tensor:
        """`total_var`, [...]: how unsure the model is about each item."""
        return self.total_var

    @property
    def is_point(self) -> bool:
        """Whether all variances are 0, as of a model without them. True without items."""
        return bool((self.log_var == -math.inf).all())

    def rows(self, index: Tensor | slice) -> Gaussian:
        """Items at `index` of the last item axis, the one before D."""
        return Gaussian(self.mean[..., index, :], self.log_var[..., index, :])

    def flatten(self) -> Gaussian:
        """All items on one axis, [N, D]."""
        return Gaussian(self.mean.flatten(0, -2), self.log_var.flatten(0, -2))

    def unflatten(self, *sizes: int) -> Gaussian:
        """Items, in order, in an array of these sizes, each [D]; one size may be -1."""
        shape = (*sizes, self.mean.shape[-1])
        return Gaussian(self.mean.reshape(shape), self.log_var.reshape(shape))

    def to(self, target: torch.device | torch.dtype) -> Gaussian:
        """To another device or floating type."""
        return Gaussian(self.mean.to(target), self.log_var.to(target))

    def at_least_float32(self) -> Gaussian:
        """In float32, or in their own type if that is finer.

        Half precision would make scores of near items equal, or order them wrongly.
        """
        return self.to(torch.promote_types(self.mean.dtype, torch.float32))

    def detach(self) -> Gaussian:
        """Without gradient."""
        return Gaussian(self.mean.detach(), self.log_var.detach())


def concatenate(parts: list[Gaussian], dim: int = 0) -> Gaussian:
    """Along `dim`, which is not the last; `parts` are [..., D]."""
    return Gaussian(torch.cat([part.mean for part in parts], dim), torch.cat([part.log_var for part in parts], dim))


# ---------------------------------------------------------------------------------------------------------------------
# Distances between every pair


def _check_gaussian(name: str, value: object, axes: int) -> None:
    """Another type would fail far from the cause."""
    if not isinstance(value, Gaussian):
        raise UserError(
            name,
            "must be a Gaussian, as encode_images and encode_texts return it; Gaussian(mean, "
            "log_var) makes one, Gaussian.point(mean) one without variances",
            type(value).__name__,
        )
    if value.mean.ndim < axes:
        raise UserError(name, f"must be [N, D]; {name}[None] makes one item", list(value.mean.shape))


def dot_products(a: Tensor, b: Tensor) -> Tensor:
    """Dot product of every pair, [..., N, D] and [..., M, D] to [..., N, M], in float32 at least.

    Half precision, and autocast, which is switched off here, would make near items equal.
    """
    precise = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    with torch.autocast(a.device.type, enabled=False):
        return a.to(precise) @ b.to(precise).transpose(-1, -2)


def csd(a: Gaussian, b: Gaussian) -> Tensor:
    """Closed-form sampled distance between every pair, [N, M], >= 0, in float32 at least.

    ||mean_a - mean_b||^2 + sum(var_a + var_b)  (PCME++; arXiv:2410.18857).

    Raises:
        UserError: an argument is not a Gaussian [N, D].
    """
    _check_gaussian("a", a, 2)
    _check_gaussian("b", b, 2)
    # A difference of large numbers: in half precision, near items would get a distance of 0.
    a, b = a.at_least_float32(), b.at_least_float32()
    squares = a.mean.square().sum(-1)[..., :, None] + b.mean.square().sum(-1)[..., None, :]
    distance = (squares - 2.0 * dot_products(a.mean, b.mean)).clamp_min(0.0)
    return distance + a.total_var[..., :, None] + b.total_var[..., None, :]


def csd_logits(a: Gaussian, b: Gaussian, logit_scale: Tensor | float, logit_bias: Tensor | float) -> Tensor:
    """Pair logits, [N, M], in float32 at least: scale * (mean_a . mean_b - (total_var_a + total_var_b) / 2) + bias.

    For unit means this is `scale * (1 - csd / 2) + bias`.
    """
    a, b = a.at_least_float32(), b.at_least_float32()
    spread = a.total_var[..., :, None] + b.total_var[..., None, :]
    return logit_scale * (dot_products(a.mean, b.mean) - 0.5 * spread) + logit_bias


# ---------------------------------------------------------------------------------------------------------------------
# Inclusion


def _inclusion_parts(specific: Gaussian, general: Gaussian) -> tuple[Tensor, Tensor]:
    """The log ratio and the distance part of the inclusion scores, per dimension.

    They are ln((2 v_s + v_g) / (v_s + 2 v_g)) and delta^2 (v_g - v_s) / ((v_s + 2 v_g)(2 v_s + v_g)). Computed from
    r = ln v_g - ln v_s, neither loses digits in single precision for nearly equal or extreme variances, in values or
    in gradients.
    """
    r = general.log_var - specific.log_var
    zero = r.new_zeros(())
    narrow = torch.logaddexp(r, zero + _LOG_2)  # ln((2 v_s + v_g) / v_s)
    wide = torch.logaddexp(r + _LOG_2, zero)  # ln((v_s + 2 v_g) / v_s)
    # (e^r - 1) / (e^r + 2), without the difference.
    contrast = torch.tanh(0.5 * r) * (1.0 - (-narrow).exp())
    delta = specific.mean - general.mean
    return narrow - wide, delta.square() * (-specific.log_var - wide).exp() * contrast


def inclusion_score(specific: Gaussian, general: Gaussian) -> Tensor:
    """How far `specific` lies in `general`, per dimension, [..., D]: H = ln ∫ p_s² p_g - ln ∫ p_s p_g².

    The arguments, [..., D], are broadcast. Antisymmetric. The sign depends only on the variances: positive where
    `general` has the larger one. The size grows with the distance of the means, so H alone never says that the means
    agree (arXiv:2410.18857, inclusion test). Minus infinity if `general` is a point; NaN if `specific` is one, whose
    square has no integral.

    Raises:
        UserError: an argument is not a Gaussian.
    """
    _check_gaussian("specific", specific, 1)
    _check_gaussian("general", general, 1)
    specific, general = specific.at_least_float32(), general.at_least_float32()
    log_ratio, distance = _inclusion_parts(specific, general)
    return 0.5 * (general.log_var - specific.log_var + log_ratio) + distance


def log_integral(squared: Gaussian, other: Gaussian) -> Tensor:
    """ln ∫ p_squared² p_other, per dimension, [..., D]; the arguments are broadcast."""
    squared, other = squared.at_least_float32(), other.at_least_float32()
    wide = torch.logaddexp(squared.log_var, other.log_var + _LOG_2)
    delta = squared.mean - other.mean
    return -LOG_2PI - 0.5 * (squared.log_var + wide) - delta.square() * (-wide).exp()


def official_inclusion_score(specific: Gaussian, general: Gaussian, eps: float) -> Tensor:
    """The released code's inclusion score, per dimension, [..., D]; the arguments are broadcast.

    Two departures from `inclusion_score`: the difference of log variances has weight 1, not 1/2 (slope 5/6, not 1/3, at
    equal variances); and the distance part is scaled by exp(eps), so it almost vanishes at the published eps <= -10.
    """
    specific, general = specific.at_least_float32(), general.at_least_float32()
    log_ratio, distance = _inclusion_parts(specific, general)
    return general.log_var - specific.log_var + 0.5 * log_ratio + math.exp(eps) * distance


def official_inclusion_test(specific: Gaussian, general: Gaussian, eps: float) -> Tensor:
    """The released code's one-sided test, per dimension, [..., D]; the arguments are broadcast.

    test(a, b) - test(b, a) is the official score. It is `log_integral` with the log normaliser doubled and everything
    else scaled by exp(eps).
    """
    specific, general = specific.at_least_float32(), general.at_least_float32()
    wide = torch.logaddexp(specific.log_var, general.log_var + _LOG_2)
    delta = specific.mean - general.mean
    normaliser = -1.5 * specific.log_var - 0.5 * general.log_var - 0.5 * wide + 0.5 * (_LOG_2 - eps)
    return normaliser - math.exp(eps) * delta.square() * (-wide).exp()


# ---------------------------------------------------------------------------------------------------------------------
# Divergence from the standard normal


def kl_to_standard(gaussian: Gaussian) -> Tensor:
    """KL(N(mean, var) || N(0, 1)), per dimension, [..., D], in nats, >= 0."""
    gaussian = gaussian.at_least_float32()
    return 0.5 * (gaussian.mean.square() + gaussian.log_var.exp() - 1.0 - gaussian.log_var)


def official_kl_to_standard(gaussian: Gaussian) -> Tensor:
    """The released code's KL term, per dimension, [..., D]: with the log *standard deviation* as the log variance.

    Same minimiser as `kl_to_standard`, about half its gradient at log variances near -10.
    """
    return kl_to_standard(Gaussian(gaussian.mean, 0.5 * gaussian.log_var))


# ---------------------------------------------------------------------------------------------------------------------
# Matrices over pairs, in blocks
#
# Every pair takes work in each of D dimensions. A block of pairs fits a CPU's cache, all blocks reuse its memory, and
# one logarithm of a product replaces those of many dimensions.

_LINEAR_RANGE = 30.0
"""Log variances this near to their dimension's mean become float32 variances without losing digits."""
_LOG_PRODUCT = 60.0
"""Products stay between e^-60 and e^60, within the range of float32."""
_CPU_BLOCK = 2**18
_DEVICE_BLOCK = 2**26


def inclusion_matrix(specific: Gaussian, general: Gaussian, *, block: int | None = None) -> Tensor:
    """`inclusion_score`, summed over dimensions, for every pair, [N, M], in float32 at least. No gradient.

    Computed in blocks of about `block` pairs times dimensions.
    """
    return _matrix(inclusion_score, _inclusion_block, specific, general, block)


def official_inclusion_test_matrix(
    specific: Gaussian, general: Gaussian, eps: float = 0.0, *, block: int | None = None
) -> Tensor:
    """`official_inclusion_test`, summed over dimensions, for every pair, [N, M], in float32 at least. No gradient.

    The measure of the released HierarCaps script. Computed in blocks of about `block` pairs times dimensions.
    """
    score, kernel = partial(official_inclusion_test, eps=eps), partial(_official_block, eps=eps)
    return _matrix(score, kernel, specific, general, block)


class _Side(NamedTuple):
    """Scaled per dimension by a common `centre` of the log variances, [D]."""

    mean: Tensor
    """[N, D], divided by exp(centre / 2)."""
    var: Tensor
    """[N, D], divided by exp(centre)."""
    log_var: Tensor
    """[N], sum over dimensions of log_var - centre; of log_var itself it would lose digits."""

    def rows(self, index: slice) -> _Side:
        return _Side(self.mean[index], self.var[index], self.log_var[index])


class _Buffers(NamedTuple):
    """Scratch memory for a block, and two numbers that all share."""

    first: Tensor
    second: Tensor
    spread: float
    """Largest distance of a log variance from its centre."""
    centre: float
    """Sum of the centres over dimensions."""


_Kernel = Callable[[_Side, _Side, _Buffers], Tensor]


@torch.no_grad()
def _matrix(
    score: Callable[[Gaussian, Gaussian], Tensor],
    kernel: _Kernel,
    specific: Gaussian,
    general: Gaussian,
    block: int | None,
) -> Tensor:
    """`score`, summed over dimensions, for every pair, [N, M].

    `kernel` computes a block from variances in the linear domain. Where their range is too wide, as with points,
    `score` is used.
    """
    # Products of factors would overflow float16.
    specific, general = specific.at_least_float32(), general.at_least_float32()
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
    centre_sum = float(centre.sum())
    narrow, wide = (_side(side, centre) for side in (specific, general))
    shape = (2, rows, columns, dim) if spread < _LINEAR_RANGE else (2, 0, 0, 0)
    first, second = sums.new_empty(shape)
    for top in range(0, num_rows, rows):
        for left in range(0, num_columns, columns):
            here, there = slice(top, top + rows), slice(left, left + columns)
            if spread < _LINEAR_RANGE:
                one, other = narrow.rows(here), wide.rows(there)
                part = (slice(len(one.mean)), slice(len(other.mean)))
                block_sums = kernel(one, other, _Buffers(first[part], second[part], spread, centre_sum))
            else:
                some, others = specific.rows(here), general.rows(there)
                block_sums = score(Gaussian(some.mean[:, None], some.log_var[:, None]), others).sum(-1)
            sums[here, there] = block_sums
    return sums


def _side(gaussian: Gaussian, centre: Tensor) -> _Side:
    relative = gaussian.log_var - centre
    return _Side(gaussian.mean * (-0.5 * centre).exp(), relative.exp(), relative.sum(-1))


def _inclusion_block(narrow: _Side, wide: _Side, buffers: _Buffers) -> Tensor:
    inner, outer = buffers.first, buffers.second
    torch.add(2.0 * narrow.var[:, None], wide.var, out=inner)
    torch.add(narrow.var[:, None], 2.0 * wide.var, out=outer)
    logs = _sum_of_logs(inner / outer, _LOG_2)
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
    # -3/2 l1 - 1/2 l2 - 1/2 ln(v1 + 2 v2), where each log variance l is its centre plus a remainder.
    constant = 0.5 * (_LOG_2 - eps) * outer.shape[-1] - 2.5 * buffers.centre
    log_vars = 1.5 * narrow.log_var[:, None] + 0.5 * wide.log_var
    return constant - log_vars - 0.5 * logs - math.exp(eps) * distance


def _sum_of_logs(factors: Tensor, largest: float) -> Tensor:
    """Sum of ln(factors) over the last axis, [..., D] to [...]; overwrites `factors`.

    Multiplies one half of the axis into the other while the products stay in range: a multiplication costs less than a
    logarithm. No |ln(factor)| may exceed `largest`.
    """
    folds = int(math.log2(max(1.0, _LOG_PRODUCT / largest)))
    while folds > 0 and factors.shape[-1] > 1 and factors.shape[-1] % 2 == 0:
        half = factors.shape[-1] // 2
        factors = factors[..., :half].mul_(factors[..., half:])
        folds -= 1
    return factors.log().sum(-1)
