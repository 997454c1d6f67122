"""Measures of probabilities against their definitions and scikit-learn's."""

import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss

from prolip.metrics import measure_pairs, measure_reliability
from prolip.metrics.reliability import item_losses, reliability_curve
from prolip.metrics.statistics import equal_mass_error, value_of


def test_nll_and_brier_losses_equal_scikit_learns():
    draws = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(60, 4, generator=draws), torch.randint(4, (60,), generator=draws)
    nll, brier = item_losses(logits, labels)
    probabilities = logits.double().softmax(dim=1)
    assert float(nll.mean()) == pytest.approx(log_loss(labels, probabilities, labels=range(4)))
    by_class = [brier_score_loss(labels == place, probabilities[:, place]) for place in range(4)]
    assert float(brier.mean()) == pytest.approx(sum(by_class))


def test_the_curve_of_a_hand_made_example():
    confidence, correct = torch.tensor([0.9, 0.2, 0.6, 0.3, 0.8]), torch.tensor([1, 0, 0, 1, 1])
    # Two bins: .2 .3 (wrong, right; of five items the first bin ends at 2) and .6 .8 .9 (wrong, right, right).
    mean_confidence, accuracy = reliability_curve(confidence, correct, 2)
    assert mean_confidence.tolist() == pytest.approx([0.25, 2.3 / 3])
    assert accuracy.tolist() == pytest.approx([0.5, 2 / 3])


def test_the_true_probabilities_are_the_most_reliable():
    draws = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(3000, 5, generator=draws)
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=draws)[:, 0]
    right, sharp = (measure_reliability(factor * logits, labels, num_resamples=20) for factor in (1.0, 3.0))
    assert all(one.high < other.low for one, other in zip(right, sharp, strict=True))
    few = measure_reliability(logits[:150], labels[:150], num_resamples=200)
    assert all(one.low <= one.value <= one.high for one in (*right, *few))


def test_pairs_are_measured_one_by_one_and_resampled_by_item():
    draws = torch.Generator().manual_seed(2)
    logits = 2 * torch.randn(40, 4, generator=draws)
    match = torch.rand(40, 4, generator=draws) < logits.sigmoid()
    found = measure_pairs(logits, match, num_resamples=9, seed=5)
    shares = logits.double().sigmoid()
    error = value_of(equal_mass_error, shares.flatten(), match.flatten())
    expected = (error, brier_score_loss(match.flatten(), shares.flatten()), log_loss(match.flatten(), shares.flatten()))
    assert [interval.value for interval in found] == pytest.approx(expected)
    again, squares = torch.Generator().manual_seed(5), (match.double() - shares).square()
    values = [float(squares[torch.randint(40, (40,), generator=again)].mean()) for _ in range(9)]
    draws_of = torch.tensor(values, dtype=torch.float64)
    bounds = draws_of.quantile(torch.tensor([0.025, 0.975]).double()) - draws_of.mean() + found.brier.value
    assert found.brier[1:] == pytest.approx(bounds.tolist())
    alone = measure_pairs(torch.tensor([[-800.0, -800.0, 0.0, 800.0]]), match[:1], num_resamples=5)
    assert alone.calibration_error.low == alone.calibration_error.value, "a resample of one item is that item"
