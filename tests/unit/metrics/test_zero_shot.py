"""Prompt ensembles and accuracies against loops and tables."""

import math

import pytest
import torch
from tests.support.random_gaussians import gaussians

from prolip.gaussian import Gaussian
from prolip.metrics.uncertainty import area_under_risk_coverage, expected_calibration_error, uncertainty_bins
from prolip.metrics.zero_shot import (
    aggregate_prompts,
    correct_within,
    evaluate_zero_shot,
    measure_zero_shot,
    zero_shot_logits,
)

T = torch.tensor


def test_aggregate_is_the_normalised_mean_and_the_mean_variance():
    given = gaussians(4, 3, 6, seed=0)
    classifier = aggregate_prompts(given)
    for c in range(4):
        total = sum(given.mean[c, k] for k in range(3)) / 3
        assert torch.allclose(classifier.weight[c], total / total.norm())
        assert torch.allclose(classifier.var[c], sum(given.log_var[c, k].exp() for k in range(3)) / 3)
    assert aggregate_prompts(Gaussian.point(given.mean)).var.eq(0).all()


def test_logits_equal_the_definition():
    classifier, images = aggregate_prompts(gaussians(4, 3, 6, seed=0)), gaussians(5, 6, seed=1).mean
    dots = torch.stack([torch.stack([image @ weight for weight in classifier.weight]) for image in images])
    torch.testing.assert_close(zero_shot_logits(images, classifier.weight, logit_scale=30.0), 30 * dots)
    with_var = zero_shot_logits(images, classifier.weight, classifier.total_var, logit_scale=30.0)
    torch.testing.assert_close(with_var, 30 * (dots - classifier.var.sum(1) / 2))


def test_accuracy_recall_and_majority_of_a_hand_made_table():
    logits = T([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [0.0, 9.0, 1.0], [5.0, 0.0, 1.0], [0.0, 1.0, 2.0]])
    labels = T([0, 1, 1, 2, 2])
    result = evaluate_zero_shot(logits, labels)
    assert result.top1 == pytest.approx(3 / 5)
    assert result.top5 == 1.0  # three classes: top-C
    assert result.mean_per_class_recall == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)
    assert result.majority == pytest.approx(2 / 5)
    assert correct_within(logits, labels, 1).tolist() == [True, False, True, False, True]
    six = evaluate_zero_shot(T([[6.0, 5.0, 4.0, 3.0, 2.0, 1.0]] * 6), torch.arange(6))
    assert (six.top1, six.top5) == pytest.approx((1 / 6, 5 / 6))
    assert evaluate_zero_shot(torch.zeros(4, 3), T([0, 1, 2, 0])).top1 == 0.0, "ties are wrong"
    assert evaluate_zero_shot(T([[0.0, 1.0, 0.0]]), T([1])).mean_per_class_recall == 1.0, "of the class that occurs"
    with pytest.raises(ValueError, match="logits"):
        evaluate_zero_shot(torch.full((1, 3), math.nan), T([1]))


def test_measure_zero_shot_has_the_figures_that_variances_allow():
    images, classifier = gaussians(60, 8, seed=0), aggregate_prompts(gaussians(7, 2, 8, seed=1))
    labels = torch.randint(0, 7, (60,), generator=torch.Generator().manual_seed(2))
    found = measure_zero_shot(images, classifier, labels, num_bins=4, logit_scale=30.0)
    plain = zero_shot_logits(images.mean, classifier.weight, logit_scale=30.0)
    with_var = zero_shot_logits(images.mean, classifier.weight, classifier.total_var, logit_scale=30.0)
    for suffix, result in (
        ("", evaluate_zero_shot(plain, labels)),
        ("_with_var", evaluate_zero_shot(with_var, labels)),
    ):
        for name in ("top1", "top5", "mean_per_class_recall"):
            assert found[name + suffix] == getattr(result, name)
    right, uncertainty = correct_within(plain, labels, 1), images.total_var
    confidence = plain.softmax(dim=1).amax(dim=1)
    assert found["calibration_error"] == pytest.approx(expected_calibration_error(confidence, right))
    assert found["risk_coverage"] == pytest.approx(area_under_risk_coverage(uncertainty, right))
    assert found["uncertainty_pearson_top1"] == uncertainty_bins(uncertainty, right, 4).pearson
    points = classifier._replace(var=torch.zeros_like(classifier.var))
    bare = measure_zero_shot(Gaussian.point(images.mean), points, labels, logit_scale=30.0)
    assert bare == {
        key: found[key] for key in ("top1", "top5", "mean_per_class_recall", "majority", "calibration_error")
    }
