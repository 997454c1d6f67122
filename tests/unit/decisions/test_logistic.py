"""Logistic regression against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from prolip.decisions.logistic import fit_logistic


def test_the_weights_equal_scikit_learns() -> None:
    draws = torch.Generator().manual_seed(0)
    features = torch.randn(300, 3, generator=draws, dtype=torch.float64) * torch.tensor([1.0, 5.0, 0.1]) + 2
    target = torch.rand(300, generator=draws) < (features @ torch.tensor([1.0, -0.4, 3.0]).double() - 5).sigmoid()
    expected = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(features.numpy(), target.numpy())
    found = fit_logistic(features, target)
    assert found[:-1].tolist() == pytest.approx(expected.coef_[0].tolist(), rel=1e-4)
    assert float(found[-1]) == pytest.approx(float(expected.intercept_[0]), rel=1e-4)


def test_a_ridge_keeps_separated_classes_finite() -> None:
    features, target = torch.tensor([[0.0, 7.0], [1.0, 7.0]]), torch.tensor([False, True])
    found = fit_logistic(features, target, ridge=0.1)
    assert bool(found.isfinite().all())
    assert float(found[0]) > 0
    assert float(found[1]) == pytest.approx(0, abs=1e-9), "a constant feature has no weight"
    with pytest.raises(ValueError, match="at least one"):
        fit_logistic(features[:0], target[:0])


def test_a_constant_feature_has_no_weight_even_if_its_mean_is_rounded() -> None:
    features = torch.full((10, 1), 0.9814475286781881, dtype=torch.float64)
    assert float(features.std(correction=0)) > 0, "rounding; else the test would see nothing"
    found = fit_logistic(features, torch.arange(10) < 3)
    assert float(found[0]) == pytest.approx(0, abs=1e-9)
    assert float(found[1].sigmoid()) == pytest.approx(0.3)
