"""Diagonal Gaussians and the closed-form measures between them, each a pure function.

Shapes: N/M items, D embedding. Every measure takes log variances (natural log) and never a standard deviation.
Formulas are those of ProLIP (arXiv:2410.18857); where the released code computes something else, the function that
repeats it is called `official_…` and says how it differs.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

LOG_2 = math.log(2.0)
LOG_2PI = math.log(2.0 * math.pi)


class Gaussian(NamedTuple):
    """Diagonal Gaussians, one per row of the leading axes."""

    mean: Tensor
    """[..., D]; unit norm unless its maker was asked for raw means."""
    log_var: Tensor
    """[..., D]; natural log of the variance. Minus infinity for a point, whose variance is exactly 0."""

    @classmethod
    def point(cls, mean: Tensor) -> Gaussian:
        """Gaussians of zero variance: what a model without an uncertainty token returns."""
        return cls(mean, mean.new_full((), -math.inf).expand_as(mean))

    @property
    def var(self) -> Tensor:
        """Variances, [..., D]."""
        return self.log_var.exp()

    @property
    def total_var(self) -> Tensor:
        """Sum of the variances over dimensions, [...]: the uncertainty of an item."""
        return self.log_var.exp().sum(-1)

    def rows(self, index: Tensor | slice) -> Gaussian:
        """The items that `index` selects on the last item axis (the one before D)."""
        return Gaussian(self.mean[..., index, :], self.log_var[..., index, :])

    def flatten(self) -> Gaussian:
        """The same items on one axis, [N, D]."""
        return Gaussian(self.mean.flatten(0, -2), self.log_var.flatten(0, -2))

    def to(self, target: torch.device | torch.dtype) -> Gaussian:
        """The same Gaussians on another device or in another floating type."""
        return Gaussian(self.mean.to(target), self.log_var.to(target))

    def detach(self) -> Gaussian:
        """The same values outside the gradient graph."""
        return Gaussian(self.mean.detach(), self.log_var.detach())


def concatenate(parts: list[Gaussian], dim: int = 0) -> Gaussian:
    """All items of `parts`, joined along `dim`."""
    return Gaussian(torch.cat([part.mean for part in parts], dim), torch.cat([part.log_var for part in parts], dim))


# ---------------------------------------------------------------------------------------------------------------------
# Distances between every pair


def csd(a: Gaussian, b: Gaussian) -> Tensor:
    """Closed-form sampled distance between every pair, [N, M], >= 0.

    ||mean_a - mean_b||^2 + sum(var_a + var_b)  (PCME++; arXiv:2410.18857).
    """
    squares = a.mean.square().sum(-1)[..., :, None] + b.mean.square().sum(-1)[..., None, :]
    distance = (squares - 2.0 * a.mean @ b.mean.transpose(-1, -2)).clamp_min(0.0)
    return distance + a.total_var[..., :, None] + b.total_var[..., None, :]


def csd_logits(a: Gaussian, b: Gaussian, logit_scale: Tensor | float, logit_bias: Tensor | float) -> Tensor:
    """Pair logits, [N, M]: scale * (mean_a . mean_b - (total_var_a + total_var_b) / 2) + bias.

    For unit means this is `scale * (1 - csd / 2) + bias`.
    """
    spread = a.total_var[..., :, None] + b.total_var[..., None, :]
    return logit_scale * (a.mean @ b.mean.transpose(-1, -2) - 0.5 * spread) + logit_bias


# ---------------------------------------------------------------------------------------------------------------------
# Inclusion


def _inclusion_parts(specific: Gaussian, general: Gaussian) -> tuple[Tensor, Tensor]:
    """The two parts of the score, per dimension: ln((2 v_s + v_g) / (v_s + 2 v_g)), and that of the means' distance.

    The second is delta^2 (v_g - v_s) / ((v_s + 2 v_g)(2 v_s + v_g)). Both are formed from r = ln v_g - ln v_s, so that
    in single precision neither nearly equal nor extreme variances cost digits, in values or in gradients.
    """
    r = general.log_var - specific.log_var
    zero = r.new_zeros(())
    narrow = torch.logaddexp(r, zero + LOG_2)  # ln((2 v_s + v_g) / v_s)
    wide = torch.logaddexp(r + LOG_2, zero)  # ln((v_s + 2 v_g) / v_s)
    # (e^r - 1) / (e^r + 2), without the difference.
    contrast = torch.tanh(0.5 * r) * (1.0 - (-narrow).exp())
    delta = specific.mean - general.mean
    return narrow - wide, delta.square() * (-specific.log_var - wide).exp() * contrast


def inclusion_score(specific: Gaussian, general: Gaussian) -> Tensor:
    """How far `specific` lies in `general`, per dimension and broadcast: H = ln int p_s^2 p_g - ln int p_s p_g^2.

    Positive exactly where `general` has the larger variance; antisymmetric; its absolute value grows with the distance
    of the means, so H alone never says that they agree (arXiv:2410.18857, inclusion test).
    """
    log_ratio, distance = _inclusion_parts(specific, general)
    return 0.5 * (general.log_var - specific.log_var + log_ratio) + distance


def log_integral(squared: Gaussian, other: Gaussian) -> Tensor:
    """ln of the integral of p_squared^2 p_other, per dimension and broadcast."""
    wide = torch.logaddexp(squared.log_var, other.log_var + LOG_2)
    delta = squared.mean - other.mean
    return -LOG_2PI - 0.5 * (squared.log_var + wide) - delta.square() * (-wide).exp()


def official_inclusion_score(specific: Gaussian, general: Gaussian, eps: float) -> Tensor:
    """What the released loss compares, per dimension and broadcast.

    Departs from `inclusion_score` in two ways: the log-variance difference counts fully instead of by half (slope 5/6
    instead of 1/3 at equal variances), and the distance part is scaled by exp(eps), hence practically absent at the
    published eps <= -10.
    """
    log_ratio, distance = _inclusion_parts(specific, general)
    return general.log_var - specific.log_var + 0.5 * log_ratio + math.exp(eps) * distance


def official_inclusion_test(specific: Gaussian, general: Gaussian, eps: float) -> Tensor:
    """The released one-sided test, per dimension and broadcast; its antisymmetric part is `official_inclusion_score`.

    `log_integral` with a doubled log normaliser and everything but that scaled by exp(eps).
    """
    wide = torch.logaddexp(specific.log_var, general.log_var + LOG_2)
    delta = specific.mean - general.mean
    normaliser = -1.5 * specific.log_var - 0.5 * general.log_var - 0.5 * wide + 0.5 * (LOG_2 - eps)
    return normaliser - math.exp(eps) * delta.square() * (-wide).exp()


# ---------------------------------------------------------------------------------------------------------------------
# Divergence from the standard normal


def kl_to_standard(gaussian: Gaussian) -> Tensor:
    """KL(N(mean, var) || N(0, 1)) per dimension, [..., D], in nats, >= 0."""
    return 0.5 * (gaussian.mean.square() + gaussian.log_var.exp() - 1.0 - gaussian.log_var)


def official_kl_to_standard(gaussian: Gaussian) -> Tensor:
    """The released information-bottleneck term per dimension: the log *standard deviation* stands for the log variance.

    The same minimiser as `kl_to_standard`, and about half its gradient at log variances near -10.
    """
    return kl_to_standard(Gaussian(gaussian.mean, 0.5 * gaussian.log_var))
