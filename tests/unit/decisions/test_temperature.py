"""The temperature is where the likelihood is largest, and what it does at the ends."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from prolip.decisions.temperature import BOUND, fit_pairs, fit_temperature


def drawn(seed: int, true_temperature: float, count: int = 400) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(count, 5, generator=draws, dtype=torch.float64)
    labels = torch.multinomial((logits / true_temperature).softmax(dim=1), 1, generator=draws)[:, 0]
    return logits, labels


@given(st.integers(0, 999), st.floats(0.3, 4.0))
def test_the_fitted_temperature_maximises_the_likelihood(seed: int, true_temperature: float) -> None:
    logits, labels = drawn(seed, true_temperature)
    found = fit_temperature(logits, labels)
    best = float(F.cross_entropy(logits / found, labels))
    for factor in (0.5, 0.99, 1.01, 2.0):
        assert best <= float(F.cross_entropy(logits / (found * factor), labels)) + 1e-12


def test_the_true_temperature_is_found() -> None:
    logits, labels = drawn(0, 1.7, count=20000)
    assert fit_temperature(logits, labels) == pytest.approx(1.7, rel=0.03)
    assert fit_temperature(logits * 10, labels) == pytest.approx(10 * fit_temperature(logits, labels))


def test_a_temperature_stays_within_its_bounds() -> None:
    logits, labels = drawn(0, 1.0)
    assert fit_temperature(logits / 1e6, logits.argmax(dim=1)) == pytest.approx(1 / BOUND, rel=1e-3)
    assert fit_temperature(logits, logits.argmin(dim=1)) == pytest.approx(BOUND, rel=1e-3)
    assert fit_temperature(torch.ones(10, 3), torch.arange(10) % 3) == BOUND, "equal logits say nothing"
    assert fit_temperature(logits + 1e6, labels) == pytest.approx(fit_temperature(logits, labels), rel=1e-6)
    with pytest.raises(ValueError, match="at least one"):
        fit_temperature(logits[:0], labels[:0])


def test_a_few_right_answers_do_not_make_the_model_certain() -> None:
    """If all fitted answers are right, the likelihood alone would have each of them certain, wrong ones included."""
    draws = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (2000,), generator=draws)
    logits = 5.0 * F.one_hot(labels, 3) + 1.5 * torch.randn(2000, 3, generator=draws)
    right = logits.argmax(dim=1) == labels
    some, rest = torch.arange(2000)[right][:36], torch.arange(2000)[100:]
    assert not bool(right[rest].all())
    found = fit_temperature(logits[some], labels[some])
    losses = [float(F.cross_entropy(logits[rest] / factor, labels[rest])) for factor in (found, 1.0, 1 / BOUND)]
    assert losses[0] < losses[1] < 0.1 * losses[2]
    smooth = [
        float(F.cross_entropy(logits[some].double() / (found * factor), labels[some], label_smoothing=1 / 37))
        for factor in (0.99, 1.0, 1.01)
    ]
    assert min(smooth) == smooth[1], "each label gives 1 / (N + 1) to all"


@pytest.mark.parametrize("count", [5, 36, 200])
def test_one_wrong_answer_by_a_hair_does_not_make_the_model_certain(count: int) -> None:
    """The likelihood alone makes it more certain than no wrong answer at all does."""
    logits, _ = drawn(0, 1.0, count)
    labels = logits.argmax(dim=1)
    none = fit_temperature(logits, labels)
    ranked = logits[0].sort(descending=True)
    hair = logits.clone()
    hair[0, ranked.indices[0]] = ranked.values[1] - 1e-4
    assert fit_temperature(hair, labels) > 0.9 * none


def test_the_true_factor_and_bias_of_pairs_are_found() -> None:
    draws = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(5000, 6, generator=draws, dtype=torch.float64) - 10
    match = torch.rand(logits.shape, generator=draws, dtype=torch.float64) < (0.5 * logits + 3).sigmoid()
    found = fit_pairs(logits, match)
    assert found.factor == pytest.approx(0.5, rel=0.05)
    assert found.bias == pytest.approx(3.0, rel=0.05)
    apart = fit_pairs(torch.tensor([[-1.0, 1.0]]), torch.tensor([[False, True]]))
    assert (apart.factor, apart.bias) == pytest.approx((torch.tensor(2 / 3).logit().item(), 0.0), abs=1e-6)
    with pytest.raises(ValueError, match="belong together"):
        fit_pairs(logits, torch.ones_like(match))


@pytest.mark.parametrize("wrong", [torch.nan, -torch.inf])
def test_logits_that_are_not_finite_are_an_error(wrong: float) -> None:
    logits, labels = drawn(0, 1.0)
    logits[3, 1] = wrong
    with pytest.raises(ValueError, match="logits must be finite"):
        fit_temperature(logits, labels)
    with pytest.raises(ValueError, match="features must be finite"):
        fit_pairs(logits, F.one_hot(labels, 5).bool())
