"""AUROC against scikit-learn's; the excess area against the best order."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import roc_auc_score

from prolip.decisions.selective import auroc, excess_risk_coverage, risk_curve
from prolip.metrics.uncertainty import area_under_risk_coverage


def test_auroc_equals_scikit_learns_with_ties() -> None:
    draws = torch.Generator().manual_seed(0)
    doubt, wrong = torch.randint(6, (80,), generator=draws), torch.rand(80, generator=draws) < 0.3
    assert auroc(doubt, wrong) == pytest.approx(roc_auc_score(wrong, doubt))
    assert auroc(torch.zeros(80), wrong) == 0.5
    assert math.isnan(auroc(doubt, torch.zeros(80)))


def test_the_best_order_has_zero_excess_risk() -> None:
    correct = torch.tensor([1, 1, 0, 1, 0])
    assert excess_risk_coverage(1 - correct, correct) == 0
    worst = excess_risk_coverage(correct, correct)
    assert worst == pytest.approx(area_under_risk_coverage(correct, correct) - (0 + 0 + 0 + 1 / 4 + 2 / 5) / 5)
    assert worst > excess_risk_coverage(torch.zeros(5), correct) > 0


def test_the_order_of_equally_doubtful_items_has_no_effect_on_the_curve() -> None:
    for correct in ([1, 1, 0, 1], [0, 1, 1, 1]):
        answered, wrong = risk_curve(torch.tensor([0.1, 0.1, 0.1, 0.9]), torch.tensor(correct))
        assert answered.tolist() == [0.25, 0.5, 0.75, 1.0]
        assert wrong.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1 / 4])
