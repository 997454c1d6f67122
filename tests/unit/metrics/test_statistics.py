"""Bootstrap intervals against the textbook; ranks and correlations against tables and slow references."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prolip.metrics.statistics import (
    average_ranks,
    bootstrap_interval,
    pearson,
    rank_of_first_correct,
    ratio_interval,
    sorted_means,
    spearman,
)


def mean(values: Tensor) -> float:
    return float(values.mean())


def test_the_interval_of_a_mean_is_about_two_standard_errors_wide() -> None:
    values = torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = bootstrap_interval(mean, values, num_resamples=2000)
    error = float(values.std()) / math.sqrt(400)
    assert found.value == mean(values)
    assert found.low == pytest.approx(found.value - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(found.value + 1.96 * error, abs=0.15 * error)


def test_a_bootstrap_interval_covers_the_truth_at_its_level() -> None:
    held = 0
    for seed in range(200):
        values = torch.rand(60, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        found = bootstrap_interval(mean, values, level=0.8, num_resamples=200, seed=seed)
        held += found.low <= 0.5 <= found.high
    assert 0.7 < held / 200 < 0.9


def test_rows_of_several_tensors_stay_together() -> None:
    values = torch.randn(50, dtype=torch.float64)
    found = bootstrap_interval(pearson, values, 2 * values + 1, num_resamples=50)
    assert found.low == pytest.approx(1.0)
    assert bootstrap_interval(pearson, values, values, seed=1) == bootstrap_interval(pearson, values, values, seed=1)


def test_an_interval_skips_resamples_with_an_undefined_statistic() -> None:
    few = torch.tensor([0.0, 1.0])  # half of the resamples are constant
    found = bootstrap_interval(pearson, few, few, num_resamples=40)
    assert (found.low, found.high) == (pytest.approx(1.0), pytest.approx(1.0))
    never = bootstrap_interval(pearson, torch.ones(3), torch.ones(3), num_resamples=5)
    assert all(map(math.isnan, never))


def test_an_interval_may_end_at_infinity() -> None:
    """A loss is infinite where the right label has the probability 0."""
    losses = torch.tensor([0.5, 1.0, 1.5, math.inf], dtype=torch.float64)
    found = bootstrap_interval(lambda items: float(items.mean()), losses, num_resamples=50)
    assert found.value == found.high == math.inf
    assert 0.5 <= found.low <= 1.5


@pytest.mark.parametrize(
    ("items", "settings"),
    [
        ((torch.ones(2), torch.ones(3)), {}),
        ((torch.ones(0),), {}),
        ((), {}),
        ((torch.ones(2),), {"level": 1.0}),
        ((torch.ones(2),), {"num_resamples": 0}),
    ],
)
def test_invalid_bootstrap_arguments_are_refused(items: tuple[Tensor, ...], settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"resampled together|must be between|at least 1"):
        bootstrap_interval(lambda *_: 0.0, *items, **settings)  # type: ignore[arg-type]


T = torch.tensor


@pytest.mark.parametrize(
    ("scores", "correct", "rank"),
    [
        ([3.0, 2.0, 1.0], [1, 0, 0], 0),
        ([3.0, 2.0, 1.0], [0, 0, 1], 2),
        ([3.0, 2.0, 1.0], [0, 1, 1], 1),  # the best of several right ones counts
        ([3.0, 2.0, 1.0], [1, 1, 0], 0),  # other right ones push nothing down
        ([1.0, 1.0, 1.0], [0, 1, 0], 2),  # ties count against the query
        ([2.0, 2.0, 2.0], [1, 1, 1], 0),
        ([-math.inf, 0.0, 0.0], [1, 0, 0], 2),
    ],
)
def test_rank_of_first_correct_counts_better_and_equal_candidates(
    scores: list[float], correct: list[int], rank: int
) -> None:
    assert rank_of_first_correct(T([scores]), T([correct]).bool()).tolist() == [rank]


def test_ranks_without_a_correct_candidate_or_with_nan_are_errors() -> None:
    with pytest.raises(ValueError, match="query 1 has no correct candidate"):
        rank_of_first_correct(torch.zeros(2, 2), T([[True, False], [False, False]]))
    with pytest.raises(ValueError, match="NaN"):
        rank_of_first_correct(T([[math.nan, 1.0]]), T([[True, False]]))
    with pytest.raises(ValueError, match="differ in shape"):
        rank_of_first_correct(torch.zeros(2, 3), torch.ones(3, 2).bool())


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30))
def test_average_ranks_equal_a_slow_loop(values: list[int]) -> None:
    slow = [sum(v < x for v in values) + (sum(v == x for v in values) - 1) / 2 for x in values]
    assert average_ranks(T(values)).tolist() == slow


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=2, max_size=20))
def test_pearson_equals_torch(pairs: list[tuple[int, int]]) -> None:
    a, b = T([p[0] for p in pairs]).double(), T([p[1] for p in pairs]).double()
    expected = float(torch.corrcoef(torch.stack([a, b]))[0, 1]) if a.std() > 0 and b.std() > 0 else math.nan
    assert pearson(a, b) == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_pearson_of_a_constant_is_nan() -> None:
    assert math.isnan(pearson(T([1.0, 1.0, 1.0]), T([1.0, 2.0, 3.0])))
    assert math.isnan(pearson(T([1.0]), T([2.0])))
    # A constant that is no dyadic fraction has a rounding spread; it is constant all the same.
    assert math.isnan(pearson(torch.full((7,), 0.1), torch.arange(7)))
    with pytest.raises(ValueError, match="cannot be correlated"):
        pearson(torch.zeros(2), torch.zeros(3))


def test_spearman_depends_only_on_the_order() -> None:
    x = T([0.1, 5.0, 2.0, 100.0])
    assert spearman(x, x.exp()) == pytest.approx(1.0)
    assert spearman(x, -(x**3)) == pytest.approx(-1.0)
    assert spearman(T([1.0, 1.0, 2.0]), T([1.0, 2.0, 3.0])) == pytest.approx(math.sqrt(3) / 2)


def test_a_ratio_of_sums_has_the_interval_of_the_bootstrap() -> None:
    draws = torch.Generator().manual_seed(0)
    parts, sizes = torch.randint(4, (37,), generator=draws), torch.randint(1, 4, (37,), generator=draws)
    expected = bootstrap_interval(
        lambda some, of: float(some.sum() / of.sum()), parts.double(), sizes.double(), num_resamples=50, level=0.8
    )
    assert ratio_interval(parts, sizes, num_resamples=50, level=0.8) == pytest.approx(expected)
    nothing = ratio_interval(torch.zeros(3), torch.zeros(3), num_resamples=5)
    assert all(math.isnan(value) for value in nothing)


def test_nan_has_no_rank() -> None:
    values = torch.tensor([0.1, math.nan, 0.2])
    for order in (lambda: average_ranks(values), lambda: sorted_means(values, torch.ones(3))):
        with pytest.raises(ValueError, match="values with NaN have no order"):
            order()
