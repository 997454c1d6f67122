"""Answer or "don't know": a threshold on the confidence that keeps the share of wrong answers below a limit.

Selective prediction by learn then test (arXiv:2110.01052): each threshold has a hypothesis, "the share of wrong answers
at this threshold is above the limit". The hypotheses are tested in a fixed order until one cannot be rejected, and the
threshold before it is used. So the limit holds with probability 1 - delta over labelled sets. N items, T thresholds.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

MOST_THRESHOLDS = 200


class Abstention(NamedTuple):
    """When to answer."""

    threshold: float
    """Answer an item whose confidence is at least this; infinity if no threshold is safe."""
    answered: float
    """Share of the labelled items that are answered."""
    error: float
    """Share of wrong answers among these; NaN if none is answered."""


def binomial_p_values(num_wrong: Tensor, num_answered: Tensor, rate: float) -> Tensor:
    """P(at most `num_wrong` errors in `num_answered` answers), if each is wrong with probability `rate`, f64 [T].

    The exact binomial tail: a p-value of the hypothesis that the share of errors is larger than `rate`.

    Args:
        num_wrong: i64 [T].
        num_answered: i64 [T].
        rate: between 0 and 1.

    Raises:
        ValueError: the rate is out of range.
    """
    if not 0 < rate < 1:
        raise ValueError(f"an error rate of {rate} must be between 0 and 1")
    wrong, answered = num_wrong.double(), num_answered.double()
    count = torch.arange(int(num_wrong.max()) + 1 if len(num_wrong) else 1, dtype=torch.float64)
    possible = count <= wrong[:, None]
    rest = (answered[:, None] - count).clamp_min(0)
    log_ways = torch.lgamma(answered[:, None] + 1) - torch.lgamma(count + 1) - torch.lgamma(rest + 1)
    log_terms = log_ways + count * math.log(rate) + rest * math.log1p(-rate)
    return log_terms.masked_fill(~possible, -math.inf).logsumexp(dim=1).exp().clamp_max(1)


def threshold_order(confidence: Tensor, correct: Tensor, max_error: float) -> Tensor:
    """Thresholds in the order in which `abstention_threshold` tests them, descending, f64 [T].

    They are confidences of labelled items that take no part in the test. The first is the one with the smallest p-value
    on these items: stricter thresholds give too few answers to show that the share of errors is below the limit.

    Args:
        confidence: [N], of other labelled items.
        correct: [N], 0 or 1 (or bool), whether their answers are right.
        max_error: the limit.
    """
    values: Tensor = torch.unique(confidence.double()).flip(0)
    if len(values) > MOST_THRESHOLDS:
        values = values[torch.linspace(0, len(values) - 1, MOST_THRESHOLDS).round().long()]
    if len(values) == 0:
        return values
    wrong, answered = _counts(confidence, correct, values)
    return values[int(binomial_p_values(wrong, answered, max_error).argmin()) :]


def abstention_threshold(
    confidence: Tensor, correct: Tensor, thresholds: Tensor, max_error: float, *, delta: float = 0.05
) -> Abstention:
    """The smallest threshold whose share of wrong answers is below the limit, with probability 1 - `delta`.

    Fixed-sequence testing (arXiv:2110.01052, section 4), which needs no correction for the number of thresholds. The
    limit is for items that are exchangeable with the labelled ones; `delta` is the share of labelled sets for which it
    may not hold.

    Args:
        confidence: [N], of labelled items.
        correct: [N], 0 or 1 (or bool), whether their answers are right.
        thresholds: [T], in the order of the tests, chosen without these items, such as by `threshold_order`.
        max_error: largest share of wrong answers among those given, between 0 and 1.
        delta: between 0 and 1.

    Raises:
        ValueError: a setting is out of range, `correct` has another shape, or a confidence is NaN.
    """
    for name, value in (("max_error", max_error), ("delta", delta)):
        if not 0 < value < 1:
            raise ValueError(f"{name} {value} must be between 0 and 1")
    nothing = Abstention(math.inf, 0.0, math.nan)
    if len(confidence) == 0 or len(thresholds) == 0:
        return nothing
    wrong, answered = _counts(confidence, correct, thresholds)
    passed = int((binomial_p_values(wrong, answered, max_error) <= delta).long().cumprod(0).sum())
    if passed == 0:
        return nothing
    last = passed - 1
    share = float(answered[last]) / len(confidence)
    return Abstention(float(thresholds[last]), share, float(wrong[last]) / float(answered[last]))


def _counts(confidence: Tensor, correct: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
    """Wrong answers and answers at each threshold, i64 [T] each."""
    if confidence.shape != correct.shape or bool(confidence.isnan().any()):
        raise ValueError("confidence and correct must have one number per item, and none may be NaN")
    values, order = confidence.double().sort(descending=True)
    ends = torch.searchsorted(-values, -thresholds.double(), right=True)
    wrong = torch.cat([torch.zeros(1, dtype=torch.int64), (1 - correct.long())[order].cumsum(0)])
    return wrong[ends], ends
