"""The exact test behind "don't know"; how often the limit is broken is in tests/property."""

import math

import pytest
import torch
from scipy.stats import binom

from prolip.calibration.abstain import abstention_threshold, binomial_p_values, threshold_order


def test_binomial_p_values_equal_scipys():
    wrong, answered = torch.tensor([0, 3, 40, 200, 0, 5]), torch.tensor([10, 100, 500, 1000, 0, 5])
    for rate in (0.01, 0.1, 0.3):
        expected = binom.cdf(wrong.numpy(), answered.numpy(), rate)
        assert binomial_p_values(wrong, answered, rate).tolist() == pytest.approx(expected.tolist(), rel=1e-9)


def test_thresholds_are_tested_downward_until_one_fails():
    """Hundred sure answers are right, then every second one is wrong."""
    confidence = torch.linspace(1, 0.01, 200)
    correct = torch.tensor([True] * 100 + [True, False] * 50)
    found = abstention_threshold(confidence, correct, confidence[59:], 0.1)
    answered = int(found.answered * 200 + 0.5)
    wrong = int(found.error * answered + 0.5)
    assert 100 < answered < 125
    assert confidence[answered - 1] == pytest.approx(found.threshold)
    assert float(binomial_p_values(torch.tensor([wrong]), torch.tensor([answered]), 0.1)) <= 0.05
    nothing = abstention_threshold(confidence, ~correct, confidence[59:], 0.1)
    assert (nothing.threshold, nothing.answered) == (math.inf, 0.0)
    assert math.isnan(nothing.error)


def test_a_failed_threshold_ends_the_tests():
    """Few answers cannot show a small error: the first of these is not rejected, and no later one is tried."""
    confidence, correct = torch.linspace(1, 0, 100), torch.ones(100)
    assert abstention_threshold(confidence, correct, confidence[10:], 0.05).threshold == math.inf
    assert abstention_threshold(confidence, correct, confidence[80:], 0.05).answered == 1.0


def test_the_order_starts_at_the_clearest_threshold_of_other_items():
    confidence = torch.linspace(1, 0, 300)
    correct = torch.arange(300) < 150
    order = threshold_order(confidence, correct, 0.1)
    assert float(order[0]) == pytest.approx(float(confidence[149]), abs=0.01)
    assert bool((order.diff() < 0).all())


def test_thresholds_are_spread_over_all_confidences():
    confidence = torch.linspace(1, 0, 5000)
    assert float(threshold_order(confidence, torch.ones(5000), 0.1)[0]) == 0.0
    correct = (torch.arange(5000) < 2500).double()
    order = threshold_order(confidence, correct, 0.1)
    assert float(order[0]) == pytest.approx(0.5, abs=0.01)
    assert float(order[-1]) == 0.0
    assert float(-order.diff().max()) == pytest.approx(float(-order.diff().min()), abs=1e-3)


def test_limits_must_be_probabilities():
    for max_error, delta in ((0.0, 0.1), (0.1, 1.0)):
        with pytest.raises(ValueError, match="between 0 and 1"):
            abstention_threshold(torch.ones(3), torch.ones(3), torch.ones(1), max_error, delta=delta)
