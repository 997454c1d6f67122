"""Fit the mixing weights of fixed components by expectation-maximisation, for many mixtures at once.

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
_COMPACT_BELOW = 7 / 8


class FittedWeights(NamedTuple):
    """Mixing weights and the number of rounds."""

    weights: Tensor
    """f64 [C, K], rows summing to 1."""
    rounds: Tensor
    """i64 [C], the round in which each mixture converged, from 1; `max_rounds` if it did not."""


def prior_weights(log_var: Tensor, prior: Prior) -> Tensor:
    """Start weights, f64 [C, K]: even, or proportional to 1 / mean over D of var^p, p = 1, 2 or 5.

    Args:
        log_var: [C, K, D], log variances of the components, without floor or factor.

    Raises:
        UserError: a variance is zero (the model has no uncertainty) and the prior divides by it.
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
    # An observation that does not count may be explained by none of the remaining components.
    relative.masked_fill_(counts.to(weights)[:, :, None] == 0, 0.0)
    live = _Live.start(relative, counts.to(weights), products=alpha >= 1)
    fitted = FittedWeights(weights.clone(), torch.full_like(start[:, 0], max_rounds, dtype=torch.int64))
    for turn in range(1, max_rounds + 1):
        raised = (live.responsibilities(weights) + (alpha - 1)).clamp_min_(0.0)
        updated = raised / raised.sum(-1, keepdim=True)
        moved = torch.linalg.vector_norm(updated - weights, dim=-1)
        ended = ((moved <= tolerance) & ~live.done).nonzero().squeeze(1)
        if len(ended):
            fitted.weights[live.places[ended]] = weights[ended]
            fitted.rounds[live.places[ended]] = turn
            live.done[ended] = True
            remaining = (~live.done).nonzero().squeeze(1)
            if len(remaining) == 0:
                return fitted
            if len(remaining) < _COMPACT_BELOW * len(live.done):
                live, updated = live.only(remaining), updated[remaining]
        weights = updated
    unfinished = ~live.done
    fitted.weights[live.places[unfinished]] = weights[unfinished]
    check(
        not bool(fitted.weights.isnan().any()),
        "alpha",
        "must be large enough that a weight of each mixture stays above 0",
        alpha,
    )
    return fitted


class _Live(NamedTuple):
    table: Tensor
    """[C, S, K], likelihoods relative to the largest of each observation, or their logarithms."""
    counts: Tensor
    """[C, S], how often each observation counts."""
    places: Tensor
    """i64 [C], indices among all mixtures."""
    done: Tensor
    """bool [C], converged but not yet removed."""
    products: bool
    """Whether `table` holds likelihoods, not logarithms."""

    @classmethod
    def start(cls, relative: Tensor, counts: Tensor, *, products: bool) -> _Live:
        places = torch.arange(len(relative), device=relative.device)
        done = torch.zeros_like(places, dtype=torch.bool)
        return cls(relative.exp_() if products else relative, counts, places, done, products)

    def only(self, rows: Tensor) -> _Live:
        return _Live(self.table[rows], self.counts[rows], self.places[rows], self.done[rows], self.products)

    def responsibilities(self, weights: Tensor) -> Tensor:
        """Sum over observations of count times softmax over K of ln(weights) + log-likelihood, [C, K].

        With alpha >= 1 the softmax is two matrix-vector products on likelihoods, whose sum over K cannot vanish. With
        alpha < 1 a component can drop to 0; the likelihoods of the others can then underflow, so logarithms are used.
        """
        if self.products:
            evidence = torch.bmm(self.table, weights[:, :, None]).squeeze(2)
            return weights * torch.bmm((self.counts / evidence)[:, None], self.table).squeeze(1)
        shares = torch.softmax(self.table + weights.log()[:, None], dim=-1)
        return (self.counts[:, :, None] * shares).sum(dim=1)


def _rounds_type(device: torch.device) -> torch.dtype:
    """float64, so that the tolerance is meaningful; Apple GPUs only have float32."""
    return torch.float32 if device.type == "mps" else torch.float64
