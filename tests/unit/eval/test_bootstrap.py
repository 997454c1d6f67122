"""Bootstrap intervals: the textbook's width, coverage of the truth, rows that stay together."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from prolip.eval.statistics import bootstrap_interval, pearson


def mean(values: Tensor) -> float:
    return float(values.mean())


def test_the_interval_of_a_mean_is_about_two_standard_errors_wide() -> None:
    values = torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = bootstrap_interval(mean, values, num_resamples=2000)
    error = float(values.std()) / math.sqrt(400)
    assert found.value == mean(values)
    assert found.low == pytest.approx(found.value - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(found.value + 1.96 * error, abs=0.15 * error)


def test_it_holds_the_truth_as_often_as_it_says() -> None:
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


def test_a_statistic_that_is_sometimes_undefined() -> None:
    few = torch.tensor([0.0, 1.0])  # half of the resamples are constant
    found = bootstrap_interval(pearson, few, few, num_resamples=40)
    assert (found.low, found.high) == (pytest.approx(1.0), pytest.approx(1.0))
    never = bootstrap_interval(pearson, torch.ones(3), torch.ones(3), num_resamples=5)
    assert all(map(math.isnan, never))


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
def test_what_cannot_be_resampled_is_refused(items: tuple[Tensor, ...], settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"resampled together|must be between|at least 1"):
        bootstrap_interval(lambda *_: 0.0, *items, **settings)  # type: ignore[arg-type]
