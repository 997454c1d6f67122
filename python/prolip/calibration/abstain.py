"""Answer or "don't know": a threshold on the confidence that keeps the share of wrong answers below a limit.

Learn then test (arXiv:2110.01052): thresholds are tested in a fixed order for a share of wrong answers above the limit,
until one cannot be rejected. The threshold before it is used. N items, T thresholds.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

_MAX_THRESHOLDS = 200


class Abstention(NamedTuple):
    """When to answer."""

    threshold: float
    """Smallest confidence of an answer; infinity if none is safe."""
    answered: float
    error: float
    """Share of wrong answers among these; NaN if none is answered."""


def binomial_p_values(num_wrong: Tensor, num_answered: Tensor, rate: float) -> Tensor:
    """P(at most `num_wrong` errors in `num_answered` answers, i64 [T]), each wrong with probability `rate`, f64 [T].

    In (0, 1); a p-value of the hypothesis that the share of errors is larger.
    """
    if not 0 < rate < 1:
        raise ValueError(f"rate: must be between 0 and 1 (got {rate})")
    wrong, answered = num_wrong.double()[:, None], num_answered.double()[:, None]
    count = torch.arange(int(num_wrong.max()) + 1, dtype=torch.float64)
    rest = (answered - count).clamp_min(0)
    log_ways = torch.lgamma(answered + 1) - torch.lgamma(count + 1) - torch.lgamma(rest + 1)
    log_terms = log_ways + count * math.log(rate) + rest * math.log1p(-rate)
    return log_terms.masked_fill(count > wrong, -math.inf).logsumexp(dim=1).exp().clamp_max(1)


def threshold_order(confidence: Tensor, correct: Tensor, max_error: float) -> Tensor:
    """Thresholds in the order in which `abstention_threshold` tests them, descending, f64 [T].

    The first has the smallest p-value on other items; stricter ones give too few answers.

    Args:
        confidence: [N], of other labelled items.
        correct: [N], 0 or 1 (or bool), whether their answers are right.
    """
    values: Tensor = torch.unique(confidence.double()).flip(0)
    if len(values) > _MAX_THRESHOLDS:
        values = values[torch.linspace(0, len(values) - 1, _MAX_THRESHOLDS).round().long()]
    return values[int(binomial_p_values(*_counts(confidence, correct, values), max_error).argmin()) :]


def abstention_threshold(
    confidence: Tensor, correct: Tensor, thresholds: Tensor, max_error: float, *, delta: float = 0.05
) -> Abstention:
    """The smallest threshold whose share of wrong answers is below the limit, with probability 1 - `delta`.

    Fixed-sequence testing (arXiv:2110.01052, section 4) needs no correction for their number. Items must be
    exchangeable with the labelled ones.

    Args:
        confidence: [N], of labelled items.
        correct: [N], 0 or 1 (or bool), whether their answers are right.
        thresholds: [T], in the order of the tests, chosen without these items, such as by `threshold_order`.
        max_error: maximum share of wrong answers among those given, between 0 and 1.
        delta: share of labelled sets for which the limit may not hold, between 0 and 1.

    Raises:
        ValueError: a setting is out of range.
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta: must be between 0 and 1 (got {delta})")
    wrong, answered = _counts(confidence, correct, thresholds)
    passed = int((binomial_p_values(wrong, answered, max_error) <= delta).long().cumprod(0).sum())
    if passed == 0:
        return Abstention(math.inf, 0.0, math.nan)
    last = passed - 1
    share = float(answered[last]) / len(confidence)
    return Abstention(float(thresholds[last]), share, float(wrong[last]) / float(answered[last]))


def _counts(confidence: Tensor, correct: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
    """Of wrong answers and of answers, i64 [T] each."""
    given = confidence.double() >= thresholds.double()[:, None]
    return (given & (correct == 0)).sum(dim=1), given.sum(dim=1)
