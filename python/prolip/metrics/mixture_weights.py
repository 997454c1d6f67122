"""Fit the mixing weights of many mixtures of fixed components at once, by expectation-maximisation.

See docs/specification.md, section 5. C mixtures (classes), S observations, K components.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from prolip.errors import check
from prolip.metrics.config import Prior

_POWERS = {"inverse_var": 1, "inverse_var_squared": 2, "inverse_var_fifth": 5}
_SMALLEST_START = 1e-30


class FittedWeights(NamedTuple):
    """Mixing weights and rounds."""

    weights: Tensor
    """f64 [C, K], rows summing to 1."""
    rounds: Tensor
    """i64 [C], in which each mixture converged, from 1; `max_rounds` if it did not."""


def prior_weights(log_var: Tensor, prior: Prior) -> Tensor:
    """Start weights, f64 [C, K]: even, or proportional to 1 / mean over D of var^p, p = 1, 2 or 5.

    Args:
        log_var: [C, K, D], of the components, without floor or factor.

    Raises:
        UserError: the prior divides by a variance of zero (the model has no uncertainty).
    """
    if prior == "uniform":
        return log_var.new_full(log_var.shape[:2], 1 / log_var.shape[1], dtype=_rounds_type(log_var.device))
    log_power = torch.logsumexp(_POWERS[prior] * log_var, dim=-1).to(_rounds_type(log_var.device))
    check(bool(log_power.isfinite().all()), "prior", "must be uniform for prompts with a variance of 0", prior)
    start = torch.softmax(-log_power, dim=-1).clamp_min(_SMALLEST_START)
    return start / start.sum(-1, keepdim=True)


def fit_weights(
    log_likelihoods: Tensor, start: Tensor, *, counts: Tensor, alpha: float, tolerance: float, max_rounds: int
) -> FittedWeights:
    """The most probable weights of each mixture, given its observations and a Dirichlet(alpha) prior.

    A round: r = softmax over K of ln(weights) + log-likelihood; weights = max(0, sum over S of r + alpha - 1), divided
    by their sum. A mixture has converged when they would move by no more than `tolerance`, and keeps the old ones. With
    alpha >= 1 every round raises the log posterior.

    Args:
        log_likelihoods: [C, S, K]; a constant per observation changes nothing.
        start: [C, K], above 0, rows summing to 1.
        counts: [C, S], how often each observation counts; at least 0, and not all 0 if alpha is 1 or less.
        alpha: above 0.
        tolerance: at least 0.
        max_rounds: at least 1.

    Raises:
        UserError: alpha is so small that all weights of a mixture become 0.
        ValueError: a log-likelihood is NaN.
    """
    weights = start.to(_rounds_type(start.device))
    relative = (log_likelihoods - log_likelihoods.amax(dim=-1, keepdim=True)).to(weights.dtype)
    if bool(relative.isnan().any()):
        raise ValueError("log_likelihoods: must not be NaN")
    # Perhaps none of the remaining components explains one that does not count.
    relative.masked_fill_(counts.to(weights)[:, :, None] == 0, 0.0)
    counts = counts.to(weights)
    # With alpha >= 1 likelihoods will do: their sum over K cannot vanish. With less a component can drop to 0, and the
    # likelihoods of the others underflow, so logarithms are used.
    table = relative.exp_() if alpha >= 1 else relative
    done = torch.zeros_like(start[:, 0], dtype=torch.bool)
    rounds = torch.full_like(start[:, 0], max_rounds, dtype=torch.int64)
    for turn in range(1, max_rounds + 1):
        if alpha >= 1:
            evidence = torch.bmm(table, weights[:, :, None]).squeeze(2)
            seen = weights * torch.bmm((counts / evidence)[:, None], table).squeeze(1)
        else:
            seen = (counts[:, :, None] * torch.softmax(table + weights.log()[:, None], dim=-1)).sum(dim=1)
        raised = (seen + (alpha - 1)).clamp_min_(0.0)
        updated = raised / raised.sum(-1, keepdim=True)
        ended = (torch.linalg.vector_norm(updated - weights, dim=-1) <= tolerance) & ~done
        rounds[ended] = turn
        done |= ended
        if bool(done.all()):
            break
        weights = torch.where(done[:, None], weights, updated)
    rule = "must be large enough that a weight of each mixture stays above 0"
    check(not bool(weights.isnan().any()), "alpha", rule, alpha)
    return FittedWeights(weights, rounds)


def _rounds_type(device: torch.device) -> torch.dtype:
    """float64, so that the tolerance is meaningful; Apple GPUs have only float32."""
    return torch.float32 if device.type == "mps" else torch.float64
