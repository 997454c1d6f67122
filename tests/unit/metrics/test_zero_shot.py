"""Prompt ensembles and accuracies against loops and tables."""

import math

import pytest
import torch
import torch.nn.functional as F

from prolip.gaussian import Gaussian
from prolip.metrics.zero_shot import (
    PUBLISHED_LOGIT_SCALE,
    aggregate_prompts,
    correct_within,
    evaluate_zero_shot,
    zero_shot_logits,
)

T = torch.tensor


def prompts(classes: int = 4, count: int = 3, dim: int = 6) -> Gaussian:
    noise = torch.Generator().manual_seed(0)
    mean = F.normalize(torch.randn(classes, count, dim, generator=noise), dim=-1)
    return Gaussian(mean, torch.randn(classes, count, dim, generator=noise) - 3)


def test_aggregate_is_the_normalised_mean_and_the_mean_variance() -> None:
    given = prompts()
    classifier = aggregate_prompts(given)
    for c in range(4):
        total = sum(given.mean[c, k] for k in range(3)) / 3
        assert torch.allclose(classifier.weight[c], total / total.norm())
        assert torch.allclose(classifier.var[c], sum(given.log_var[c, k].exp() for k in range(3)) / 3)
    assert torch.allclose(classifier.total_var, classifier.var.sum(1))


def test_points_have_no_variance() -> None:
    assert aggregate_prompts(Gaussian.point(prompts().mean)).var.eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_logits_of_half_precision_inputs_are_computed_in_float32(dtype: torch.dtype) -> None:
    some, single = prompts().to(dtype), prompts().to(dtype).to(torch.float32)
    classes, exact = aggregate_prompts(some), aggregate_prompts(single)
    assert torch.equal(classes.weight, exact.weight)
    assert torch.equal(classes.var, exact.var)
    mean = single.mean[:, 0]
    found = zero_shot_logits(mean.to(dtype), classes.weight, classes.total_var, logit_scale=100.0)
    assert torch.equal(found, zero_shot_logits(mean, exact.weight, exact.total_var, logit_scale=100.0))


@pytest.mark.parametrize("scale", [PUBLISHED_LOGIT_SCALE, 30.0])
def test_logits_equal_the_definition(scale: float) -> None:
    classifier = aggregate_prompts(prompts())
    images = F.normalize(torch.randn(5, 6, generator=torch.Generator().manual_seed(1)), dim=1)
    plain = zero_shot_logits(images, classifier.weight, logit_scale=scale)
    with_var = zero_shot_logits(images, classifier.weight, classifier.total_var, logit_scale=scale)
    for n in range(5):
        for c in range(4):
            dot = float(images[n] @ classifier.weight[c])
            assert float(plain[n, c]) == pytest.approx(scale * dot, abs=1e-4)
            spread = float(classifier.var[c].sum())
            assert float(with_var[n, c]) == pytest.approx(scale * (dot - spread / 2), abs=1e-4)


def test_accuracy_recall_and_majority_of_a_hand_made_table() -> None:
    logits = T([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [0.0, 9.0, 1.0], [5.0, 0.0, 1.0], [0.0, 1.0, 2.0]])
    labels = T([0, 1, 1, 2, 2])
    result = evaluate_zero_shot(logits, labels)
    assert result.top1 == pytest.approx(3 / 5)
    assert result.top5 == 1.0  # three classes: top-C
    assert result.mean_per_class_recall == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)
    assert result.majority == pytest.approx(2 / 5)
    assert (result.num_images, result.num_classes) == (5, 3)
    assert correct_within(logits, labels, 2).tolist() == [True, True, True, True, True]
    assert correct_within(logits, labels, 1).tolist() == [True, False, True, False, True]


def test_top5_of_six_classes_can_fail() -> None:
    logits = T([[6.0, 5.0, 4.0, 3.0, 2.0, 1.0]] * 6)
    result = evaluate_zero_shot(logits, torch.arange(6))
    assert result.top1 == pytest.approx(1 / 6)
    assert result.top5 == pytest.approx(5 / 6)


def test_equal_logits_count_as_wrong() -> None:
    assert evaluate_zero_shot(torch.zeros(4, 3), T([0, 1, 2, 0])).top1 == 0.0


def test_classes_without_images_do_not_count_in_the_recall() -> None:
    assert evaluate_zero_shot(T([[0.0, 1.0, 0.0]]), T([1])).mean_per_class_recall == 1.0


def test_nothing_to_evaluate_or_nan_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        evaluate_zero_shot(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="and one class"):
        evaluate_zero_shot(torch.zeros(2, 0), T([0, 0]))
    with pytest.raises(ValueError, match="NaN"):
        evaluate_zero_shot(torch.full((1, 3), math.nan), T([1]))
