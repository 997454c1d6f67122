"""The threshold for retrieval by hand, and as a conformal threshold."""

from __future__ import annotations

import math

import pytest
import torch

from prolip.decisions.conformal import conformal_threshold
from prolip.decisions.risk_control import retrieval_threshold

SCORES = torch.tensor([[0.9, 0.5], [0.8, 0.1], [0.3, 0.7], [0.6, 0.6]])
CORRECT = torch.tensor([[True, False], [True, True], [True, False], [True, False]])


def test_the_threshold_is_the_largest_within_the_risk() -> None:
    # The best right candidates score .9 .8 .3 .6. With n = 4 a risk of .4 allows a mean loss of (5 * .4 - 1) / 4 = .25:
    # above .3 one query is lost, above .6 two are.
    assert retrieval_threshold(SCORES, CORRECT, 0.4) == pytest.approx(0.6)
    assert retrieval_threshold(SCORES, CORRECT, 0.39) == pytest.approx(0.3)
    assert retrieval_threshold(SCORES, CORRECT, 0.19) == -math.inf
    # By share, the second query loses half above .1.
    assert retrieval_threshold(SCORES, CORRECT, 0.2, "share") == pytest.approx(0.1)
    assert retrieval_threshold(SCORES, CORRECT, 0.31, "share") == pytest.approx(0.3)


def test_with_one_correct_candidate_the_threshold_is_the_conformal_one() -> None:
    draws = torch.Generator().manual_seed(0)
    scores = torch.rand(57, 5, generator=draws, dtype=torch.float64)
    correct = torch.zeros(57, 5, dtype=torch.bool)
    correct[torch.arange(57), torch.randint(5, (57,), generator=draws)] = True
    for risk in (0.05, 0.1, 0.2, 0.33):
        assert retrieval_threshold(scores, correct, risk) == -conformal_threshold(-scores[correct], 1 - risk)


def test_impossible_risks_and_candidates_are_errors() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        retrieval_threshold(SCORES, CORRECT, 1.0)
    with pytest.raises(ValueError, match="right candidate"):
        retrieval_threshold(SCORES, torch.zeros_like(CORRECT), 0.1)
    with pytest.raises(ValueError, match="there must be a query"):
        retrieval_threshold(SCORES[:0], CORRECT[:0], 0.1)
    for loss in ("any", "share"):
        with pytest.raises(ValueError, match="scores hold NaN"):
            retrieval_threshold(torch.full_like(SCORES, math.nan), CORRECT, 0.4, loss)


def test_right_candidates_of_another_shape_and_unknown_losses_are_errors() -> None:
    with pytest.raises(ValueError, match=r"scores \(4, 2\) and correct \(4, 1\) differ in shape"):
        retrieval_threshold(SCORES, CORRECT[:, :1], 0.4)
    with pytest.raises(ValueError, match="loss is 'all': it must be one of any, share"):
        retrieval_threshold(SCORES, CORRECT, 0.4, "all")  # type: ignore[arg-type]
