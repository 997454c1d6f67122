"""Conformal risk control for retrieval: "the right caption is among these", with a guarantee.

N queries, M candidates.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from prolip.decisions.config import Loss
from prolip.errors import check_choice


def retrieval_threshold(scores: Tensor, correct: Tensor, max_risk: float, loss: Loss = "any") -> float:
    """The largest threshold whose expected loss is at most `max_risk`: keep the candidates that score at least as high.

    Conformal risk control (arXiv:2208.02814, theorem 1) for a loss that grows with the threshold and is at most 1: the
    largest threshold with (n * mean loss + 1) / (n + 1) <= `max_risk`. The guarantee is for a query that is
    exchangeable with these, on average over sets of queries. Minus infinity, which keeps every candidate, if there are
    too few queries.

    Args:
        scores: [N, M], larger is better, on one scale for all queries, such as minus the sampled distance.
        correct: bool [N, M], the right candidates; every query needs one.
        max_risk: between 0 and 1.
        loss: `any`: 1 if none of the right candidates is kept. `share`: the share of them that is not.

    Raises:
        ValueError: there is no query, one has no right candidate, a score is NaN, `correct` has another shape, or a
            setting is out of range.
    """
    check_choice("loss", loss, Loss)
    if scores.shape != correct.shape:
        raise ValueError(f"scores {tuple(scores.shape)} and correct {tuple(correct.shape)} differ in shape")
    if not 0 < max_risk < 1:
        raise ValueError(f"max_risk {max_risk} must be between 0 and 1")
    if len(scores) == 0 or not bool(correct.any(dim=1).all()):
        raise ValueError("there must be a query, and every query needs a right candidate")
    if bool(scores.isnan().any()):
        raise ValueError("scores hold NaN")
    scores, count = scores.double(), len(scores)
    if loss == "any":
        lost_above = scores.masked_fill(~correct, -math.inf).amax(dim=1)
        weight = torch.full((count,), 1 / count, dtype=torch.float64, device=scores.device)
    else:
        lost_above = scores[correct]
        weight = (correct / (count * correct.sum(dim=1, keepdim=True)).double())[correct]
    values, order = lost_above.sort()
    lost = torch.cat([weight.new_zeros(1), weight[order].cumsum(0)])[torch.searchsorted(values, values)]
    allowed = lost <= ((count + 1) * max_risk - 1) / count + 1e-12
    return float(values[allowed].max()) if bool(allowed.any()) else -math.inf
