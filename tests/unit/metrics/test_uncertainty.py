"""Uncertainty against accuracy and by level, against hand-made tables and sampling."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from prolip.gaussian import Gaussian
from prolip.metrics.uncertainty import (
    area_under_risk_coverage,
    cosine_moments,
    expected_calibration_error,
    share_more_uncertain,
    share_ordered,
    similarity_std,
    uncertainty_bins,
    uncertainty_by_level,
)

T = torch.tensor


def test_bins_of_a_hand_made_table() -> None:
    """Sorted by uncertainty the answers are 1 1 | 1 0 | 0 0, and the most uncertain one is dropped."""
    uncertainty = T([0.7, 0.1, 0.4, 0.2, 0.3, 0.6, 0.5])
    correct = T([1, 1, 0, 1, 1, 0, 0])
    bins = uncertainty_bins(uncertainty, correct, 3)
    assert bins.accuracy == [1.0, 0.5, 0.0]
    assert bins.mean_uncertainty == pytest.approx([0.15, 0.35, 0.55])
    assert (bins.bin_size, bins.num_dropped) == (2, 1)
    assert bins.pearson == pytest.approx(-1.0)


@pytest.mark.parametrize("value", [0, 1])
def test_constant_correctness_has_no_correlation(value: int) -> None:
    assert math.isnan(uncertainty_bins(torch.rand(20), torch.full((20,), value), 10).pearson)


def test_bins_do_not_depend_on_the_order_of_equally_uncertain_items() -> None:
    """Data sets are often sorted by class, and some classes are easier than others."""
    correct = torch.arange(40) < 20
    assert math.isnan(uncertainty_bins(torch.zeros(40), correct, 10).pearson)
    draws = torch.Generator().manual_seed(0)
    uncertainty = torch.randint(3, (40,), generator=draws).double()
    first, second = (
        uncertainty_bins(uncertainty[order], correct[order], 4)
        for order in (torch.arange(40), torch.randperm(40, generator=draws))
    )
    assert first.accuracy == pytest.approx(second.accuracy)
    assert first.mean_uncertainty == second.mean_uncertainty


def test_bins_need_enough_items() -> None:
    with pytest.raises(ValueError, match="num_bins is 10: there are only 9 items"):
        uncertainty_bins(torch.rand(9), torch.ones(9), 10)


def test_share_more_uncertain_counts_ties_half() -> None:
    assert share_more_uncertain(T([3.0, 1.0, 2.0, 5.0]), T([2.0, 2.0, 2.0, 4.0])) == pytest.approx(2.5 / 4)
    assert share_more_uncertain(torch.ones(3), torch.ones(3)) == 0.5
    assert math.isnan(share_more_uncertain(torch.zeros(0), torch.zeros(0)))
    with pytest.raises(ValueError, match="do not pair"):
        share_more_uncertain(torch.zeros(2), torch.zeros(3))


def test_share_ordered_counts_chains_that_fall_at_every_step() -> None:
    levels = [T([3.0, 3.0, 3.0, 1.0]), T([2.0, 2.0, 3.0, 2.0]), T([1.0, 2.5, 1.0, 3.0])]
    assert share_ordered(levels) == 0.25
    assert math.isnan(share_ordered(levels[:1])), "no step"


def test_levels_of_points_have_no_ratio() -> None:
    by_level = uncertainty_by_level([torch.zeros(2), torch.zeros(3)])
    assert by_level.mean == [0.0, 0.0]
    assert all(map(math.isnan, [*by_level.relative, *by_level.low, *by_level.high, by_level.spearman]))


def test_uncertainty_by_level_is_a_mean_a_ratio_and_quantiles() -> None:
    by_level = uncertainty_by_level([T([2.0]), T([1.0, 1.5]), T([1.0, 0.5, 0.0])])
    assert by_level.mean == [2.0, 1.25, 0.5]
    assert by_level.relative == [1.0, 0.625, 0.25]
    assert by_level.low[1] == pytest.approx(1.05 / 2)
    assert by_level.high[1] == pytest.approx(1.45 / 2)
    # Ranks of the values 2, 1, 1.5, 1, .5, 0: 5, 2.5, 4, 2.5, 1, 0; of the generality: 5, 3.5, 3.5, 1, 1, 1.
    a, b = T([5, 2.5, 4, 2.5, 1, 0]), T([5, 3.5, 3.5, 1, 1, 1])
    assert by_level.spearman == pytest.approx(float(torch.corrcoef(torch.stack([a, b]))[0, 1]))
    with pytest.raises(ValueError, match="has no item"):
        uncertainty_by_level([T([1.0]), torch.zeros(0)])


def test_similarity_std_equals_sampling() -> None:
    noise = torch.Generator().manual_seed(0)
    mean = F.normalize(torch.randn(2, 6, generator=noise), dim=1)
    pair = Gaussian(mean, torch.randn(2, 6, generator=noise) - 1)
    draws = pair.mean + pair.var.sqrt() * torch.randn(200_000, 2, 6, generator=noise)
    sampled = (draws[:, 0] * draws[:, 1]).sum(1).std()
    assert float(similarity_std(pair.rows(slice(0, 1)), pair.rows(slice(1, 2)))[0, 0]) == pytest.approx(
        float(sampled), rel=0.01
    )


# ---------------------------------------------------------------------------------------------------------------------
# Risk against coverage, calibration


def test_area_under_risk_coverage_of_a_hand_made_example() -> None:
    """From the most certain on: right, wrong, right; risks 0, 1/2, 1/3."""
    assert area_under_risk_coverage(T([0.3, 0.1, 0.2]), T([1, 1, 0])) == pytest.approx((0 + 1 / 2 + 1 / 3) / 3)


@pytest.mark.parametrize("seed", range(4))
def test_risk_coverage_of_ties_is_the_mean_over_all_orders(seed: int) -> None:
    noise = torch.Generator().manual_seed(seed)
    uncertainty = torch.randint(3, (6,), generator=noise).float()
    correct = torch.randint(2, (6,), generator=noise)
    areas = []
    for order in itertools.permutations(range(6)):
        walked = sorted(order, key=lambda i: float(uncertainty[i]))
        risks = [sum(1 - int(correct[i]) for i in walked[:k]) / k for k in range(1, 7)]
        areas.append(sum(risks) / 6)
    assert area_under_risk_coverage(uncertainty, correct) == pytest.approx(sum(areas) / len(areas))


def test_a_constant_uncertainty_has_the_error_rate_as_risk() -> None:
    assert area_under_risk_coverage(torch.ones(8), T([1, 1, 1, 0, 1, 0, 1, 1])) == pytest.approx(0.25)
    with pytest.raises(ValueError, match="at least one item"):
        area_under_risk_coverage(T([]), T([]))


@pytest.mark.parametrize("num_bins", [1, 4, 15])
def test_calibration_error_equals_a_loop_over_bins(num_bins: int) -> None:
    noise = torch.Generator().manual_seed(num_bins)
    confidence = torch.rand(200, generator=noise, dtype=torch.float64)
    confidence[:3] = T([0.0, 1.0, 0.5], dtype=torch.float64)
    correct = torch.randint(2, (200,), generator=noise)
    total = 0.0
    for place in range(num_bins):
        low, high = place / num_bins, (place + 1) / num_bins
        inside = [i for i, c in enumerate(confidence.tolist()) if low < c <= high or (place == 0 and c == 0)]
        if inside:
            gap = sum(int(correct[i]) for i in inside) / len(inside) - float(confidence[inside].mean())
            total += len(inside) / 200 * abs(gap)
    assert expected_calibration_error(confidence, correct, num_bins) == pytest.approx(total)


def test_a_certain_and_correct_model_has_no_calibration_error() -> None:
    assert expected_calibration_error(T([1.0, 0.0]), T([1, 0])) == 0.0
    assert expected_calibration_error(T([1.0, 1.0]), T([0, 0])) == 1.0
    for wrong in (T([1.1]), T([math.nan]), T([])):
        with pytest.raises(ValueError, match="confidences must be in"):
            expected_calibration_error(wrong, torch.ones(len(wrong)))


def test_cosine_moments_are_close_to_sampled_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    pair = Gaussian(
        F.normalize(torch.randn(2, 64, generator=generator, dtype=torch.float64), dim=1),
        (torch.randn(2, 64, generator=generator, dtype=torch.float64) * 0.5 - 6.0),
    )
    noise = torch.randn(40_000, 2, 64, generator=generator, dtype=torch.float64)
    drawn = F.normalize(pair.mean + noise * pair.var.sqrt(), dim=-1)
    cosines = (drawn[:, 0] * drawn[:, 1]).sum(-1)
    found = cosine_moments(pair.rows(slice(0, 1)), pair.rows(slice(1, 2)))
    assert float(found.mean[0, 0]) == pytest.approx(float(cosines.mean()), abs=2e-3)
    assert float(found.var[0, 0]) == pytest.approx(float(cosines.var()), rel=0.05)


def test_cosine_moments_of_points_are_the_cosine() -> None:
    means = F.normalize(torch.randn(3, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    found = cosine_moments(Gaussian.point(means), Gaussian.point(means[:2]))
    torch.testing.assert_close(found.mean, means @ means[:2].T)
    assert not found.var.any()


def test_bins_need_one_number_per_item() -> None:
    with pytest.raises(ValueError, match="one number per item"):
        uncertainty_bins(torch.rand(20), torch.ones(30), 5)
    with pytest.raises(ValueError, match="none may be NaN"):
        uncertainty_bins(T([0.1, math.nan]), T([1, 0]), 2)
