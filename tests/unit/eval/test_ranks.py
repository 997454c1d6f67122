"""Ranks and correlations against hand-made tables and slow restatements."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prolip.eval.statistics import average_ranks, pearson, rank_of_first_correct, spearman

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
def test_rank_of_first_correct(scores: list[float], correct: list[int], rank: int) -> None:
    assert rank_of_first_correct(T([scores]), T([correct]).bool()).tolist() == [rank]


def test_rank_needs_a_correct_candidate_and_numbers() -> None:
    with pytest.raises(ValueError, match="query 1 has no correct candidate"):
        rank_of_first_correct(torch.zeros(2, 2), T([[True, False], [False, False]]))
    with pytest.raises(ValueError, match="NaN"):
        rank_of_first_correct(T([[math.nan, 1.0]]), T([[True, False]]))
    with pytest.raises(ValueError, match="differ in shape"):
        rank_of_first_correct(torch.zeros(2, 3), torch.ones(3, 2).bool())


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30))
def test_average_ranks_equal_a_slow_restatement(values: list[int]) -> None:
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


def test_spearman_sees_only_the_order() -> None:
    x = T([0.1, 5.0, 2.0, 100.0])
    assert spearman(x, x.exp()) == pytest.approx(1.0)
    assert spearman(x, -(x**3)) == pytest.approx(-1.0)
    assert spearman(T([1.0, 1.0, 2.0]), T([1.0, 2.0, 3.0])) == pytest.approx(math.sqrt(3) / 2)
