"""Scores and thresholds of label sets by hand; how often sets contain the label is in tests/property."""

import math

import pytest
import torch

from prolip.calibration.conformal import class_thresholds, conformal_threshold, items_needed


@pytest.mark.parametrize(
    ("guarantee", "needed", "of_nineteen"), [(0.8, 4, 16), (0.9, 9, 18), (0.95, 19, 19), (0.5, 1, 10), (1e-12, 1, 1)]
)
def test_the_threshold_has_the_finite_sample_correction(guarantee, needed, of_nineteen):
    assert items_needed(guarantee) == needed
    scores = torch.arange(1.0, 20.0)[torch.randperm(19)]
    assert conformal_threshold(scores, guarantee) == of_nineteen
    assert conformal_threshold(torch.arange(1.0, needed + 1), guarantee) == needed
    assert conformal_threshold(torch.arange(1.0, needed), guarantee) == math.inf


def test_a_guarantee_must_be_a_probability_and_a_score_a_number():
    for value in (0.0, 1.0, 95.0):
        with pytest.raises(ValueError, match="guarantee"):
            items_needed(value)
    with pytest.raises(ValueError, match="scores"):
        conformal_threshold(torch.tensor([0.1] * 18 + [math.nan]), 0.95)


def test_labels_with_enough_items_have_their_own_threshold():
    """At 80 %: four items are needed. Label 2 has three, and label 3 none."""
    scores = torch.tensor([1, 2, 3, 4, 10, 20, 30, 40, 50, 7, 8, 9], dtype=torch.float64)
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2])
    found = class_thresholds(scores, labels, 4, 0.8)
    assert found.basis == ["class", "class", "all", "all"]
    everything = conformal_threshold(scores, 0.8)
    assert found.value.tolist() == [4, 50, everything, everything]


def test_rare_labels_share_the_threshold_of_labels_like_them():
    """Twenty labels with 18 items each, at 95 %: one too few for a threshold of their own. Half of them are hard."""
    draws = torch.Generator().manual_seed(0)
    labels = torch.arange(20).repeat_interleave(18)
    scores = torch.rand(360, generator=draws, dtype=torch.float64) + 10 * (labels % 2)
    found = class_thresholds(scores, labels, 20, 0.95)
    assert found.basis == ["cluster"] * 20
    assert bool((found.value[::2] <= 1).all())
    assert bool((found.value[1::2] > 10).all())
    assert found.value.equal(class_thresholds(scores, labels, 20, 0.95).value)
