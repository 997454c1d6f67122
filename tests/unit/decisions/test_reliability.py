"""Measures of probabilities against their definitions and scikit-learn's."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss

from prolip.decisions.reliability import (
    equal_mass_calibration_error,
    item_losses,
    measure_pairs,
    measure_reliability,
    reliability_curve,
)


def test_nll_and_brier_losses_equal_scikit_learns() -> None:
    draws = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(60, 4, generator=draws), torch.randint(4, (60,), generator=draws)
    nll, brier = item_losses(logits, labels)
    probabilities = logits.double().softmax(dim=1)
    assert float(nll.mean()) == pytest.approx(log_loss(labels, probabilities, labels=range(4)))
    by_class = [brier_score_loss(labels == place, probabilities[:, place]) for place in range(4)]
    assert float(brier.mean()) == pytest.approx(sum(by_class))


def test_calibration_error_of_a_hand_made_example() -> None:
    confidence = torch.tensor([0.9, 0.2, 0.6, 0.3, 0.8])
    correct = torch.tensor([1, 0, 0, 1, 1])
    # Two bins: .2 .3 (wrong, right; of five items the first bin ends at 2) and .6 .8 .9 (wrong, right, right).
    assert equal_mass_calibration_error(confidence, correct, 2) == pytest.approx((abs(1 - 0.5) + abs(2 - 2.3)) / 5)
    assert equal_mass_calibration_error(confidence, correct, 1) == pytest.approx(abs(3 - 2.8) / 5)
    alone = equal_mass_calibration_error(confidence, correct, 99)
    assert alone == pytest.approx(float((correct - confidence).abs().mean()))
    mean_confidence, accuracy = reliability_curve(confidence, correct, 2)
    assert mean_confidence.tolist() == pytest.approx([0.25, 2.3 / 3])
    assert accuracy.tolist() == pytest.approx([0.5, 2 / 3])
    with pytest.raises(ValueError, match="at least one"):
        equal_mass_calibration_error(confidence[:0], correct[:0])


def test_the_order_of_equally_confident_items_has_no_effect() -> None:
    confidence, correct = torch.tensor([0.75, 0.75, 0.75, 0.75, 0.5]), torch.tensor([0, 1, 1, 1, 1])
    for places in ([0, 1, 2, 3, 4], [1, 4, 2, 3, 0]):
        some = confidence[places], correct[places]
        # Two bins: .5 .75 and .75 .75 .75; three of the four that are .75 are right.
        assert equal_mass_calibration_error(*some, 2) == pytest.approx(0.5 / 5)
        assert reliability_curve(*some, 2)[1].tolist() == pytest.approx([(1 + 0.75) / 2, 0.75])


def test_the_true_probabilities_are_the_most_reliable() -> None:
    draws = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(3000, 5, generator=draws)
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=draws)[:, 0]
    right, sharp = (measure_reliability(factor * logits, labels, num_resamples=20) for factor in (1.0, 3.0))
    for name in ("nll", "brier", "calibration_error"):
        value = getattr(right, name)
        assert value.low <= value.value <= value.high or name == "calibration_error", (
            "resamples only add error to this one"
        )
        assert value.high < getattr(sharp, name).low, name


def test_pairs_are_measured_one_by_one_and_resampled_by_item() -> None:
    draws = torch.Generator().manual_seed(2)
    logits = 2 * torch.randn(40, 4, generator=draws)
    match = torch.rand(40, 4, generator=draws) < logits.sigmoid()
    found = measure_pairs(logits, match, num_bins=3, num_resamples=9, seed=5)
    shares = logits.double().sigmoid()
    assert found.nll.value == pytest.approx(log_loss(match.flatten(), shares.flatten()))
    assert found.brier.value == pytest.approx(brier_score_loss(match.flatten(), shares.flatten()))
    error = equal_mass_calibration_error(shares.flatten(), match.flatten(), 3)
    assert found.calibration_error.value == pytest.approx(error)
    # Resamples: the same items, with all their pairs; the bins end at the 53rd and the 107th pair.
    ends = shares.flatten().sort().values[[53, 107]]
    bins, gaps = torch.bucketize(shares, ends, right=True), match.double() - shares
    again = torch.Generator().manual_seed(5)
    squares, errors = [], []
    for _ in range(9):
        rows = torch.randint(40, (40,), generator=again)
        squares.append(float(gaps[rows].square().mean()))
        errors.append(sum(abs(float(gaps[rows][bins[rows] == place].sum())) for place in range(3)) / 160)
    for interval, values in ((found.brier, squares), (found.calibration_error, errors)):
        expected = torch.tensor(values, dtype=torch.float64).quantile(torch.tensor([0.025, 0.975]).double())
        assert interval[1:] == pytest.approx(expected.tolist())


def test_the_order_of_equally_probable_pairs_has_no_effect() -> None:
    """Bins end among equal probabilities, many of which are 0 or 1 after the sigmoid of a large logit."""
    draws = torch.Generator().manual_seed(3)
    logits = torch.tensor([-800.0, -1.0, 0.0, 1.0, 800.0])[torch.randint(5, (30, 4), generator=draws)]
    match = torch.rand(30, 4, generator=draws) < 0.5
    expected = equal_mass_calibration_error(logits.double().sigmoid().flatten(), match.flatten(), 7)
    for order in (torch.arange(30), match.sum(dim=1).argsort(), torch.randperm(30, generator=draws)):
        found = measure_pairs(logits[order], match[order], num_bins=7, num_resamples=5)
        assert found.calibration_error.value == pytest.approx(expected)
    # A resample, too, knows only the items: with one item, every resample is that item.
    alone = measure_pairs(logits[:1], match[:1], num_bins=3, num_resamples=5).calibration_error
    assert alone.low == pytest.approx(alone.value)
    assert alone.value == pytest.approx(equal_mass_calibration_error(logits[0].sigmoid(), match[0], 3))
