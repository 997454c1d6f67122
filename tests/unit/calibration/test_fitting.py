"""Temperature, pair scale, logistic regression and label frequencies."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, strategies as st
from sklearn.linear_model import LogisticRegression
from tests.support.refusals import refusal_of

from prolip.calibration import fit_pairs, fit_temperature, label_shares, log_prior
from prolip.calibration.fitting import BOUND, class_densities, fit_known, fit_logistic


def drawn(seed, true_temperature, count=400):
    draws = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(count, 5, generator=draws, dtype=torch.float64)
    labels = torch.multinomial((logits / true_temperature).softmax(dim=1), 1, generator=draws)[:, 0]
    return logits, labels


@given(st.integers(0, 999), st.floats(0.3, 4.0))
def test_the_fitted_temperature_maximises_the_likelihood(seed, true_temperature):
    logits, labels = drawn(seed, true_temperature)
    found = fit_temperature(logits, labels)
    best = float(F.cross_entropy(logits / found, labels))
    for factor in (0.5, 0.99, 1.01, 2.0):
        assert best <= float(F.cross_entropy(logits / (found * factor), labels)) + 1e-12
    assert fit_temperature(100 * logits + 1e4, labels) == pytest.approx(100 * found)


def test_a_temperature_stays_within_its_bounds():
    logits, _ = drawn(0, 1.0)
    assert fit_temperature(logits, logits.argmin(dim=1)) == BOUND
    with pytest.raises(ValueError, match="labels"):
        fit_temperature(logits[:0], logits[:0].argmin(dim=1))


@pytest.mark.parametrize("count", [5, 36, 200])
def test_nearly_separable_answers_do_not_make_the_model_certain(count):
    """Without a wrong answer, or with one that is wrong by a hair, labels are smoothed by 1 / (N + 1)."""
    logits, _ = drawn(0, 1.0, count)
    labels = logits.argmax(dim=1)
    found = fit_temperature(logits, labels)
    losses = [
        float(F.cross_entropy(logits / (found * factor), labels, label_smoothing=1 / (count + 1)))
        for factor in (0.99, 1.0, 1.01)
    ]
    assert min(losses) == losses[1]
    ranked = logits[0].sort(descending=True)
    logits[0, ranked.indices[0]] = ranked.values[1] - 1e-4
    assert fit_temperature(logits, labels) > 0.9 * found


def test_the_true_factor_and_bias_of_pairs_are_found():
    draws = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(5000, 6, generator=draws, dtype=torch.float64) - 10
    match = torch.rand(logits.shape, generator=draws, dtype=torch.float64) < (0.5 * logits + 3).sigmoid()
    assert fit_pairs(logits, match) == pytest.approx((0.5, 3.0), rel=0.05)
    separable = fit_pairs(torch.tensor([[-1.0, 1.0]]), torch.tensor([[False, True]]))
    assert separable == pytest.approx((math.log(2), 0.0), abs=1e-6)
    with pytest.raises(ValueError, match="match"):
        fit_pairs(logits, torch.ones_like(match))


def test_logistic_weights_equal_scikit_learns():
    draws = torch.Generator().manual_seed(0)
    features = torch.randn(300, 3, generator=draws, dtype=torch.float64) * torch.tensor([1.0, 5.0, 0.1]) + 2
    target = torch.rand(300, generator=draws) < (features @ torch.tensor([1.0, -0.4, 3.0]).double() - 5).sigmoid()
    standard = (features - features.mean(dim=0)) / features.std(dim=0, correction=0)
    for ridge in (0.0, 0.01):
        penalty = np.inf if ridge == 0 else 1 / (300 * ridge)
        expected = LogisticRegression(C=penalty, tol=1e-10, max_iter=1000).fit(standard.numpy(), target.numpy())
        found = fit_logistic(features, target, ridge)
        probabilities = (features @ found[:-1] + found[-1]).sigmoid()
        assert probabilities.tolist() == pytest.approx(
            expected.predict_proba(standard.numpy())[:, 1].tolist(), rel=1e-4
        )
    constant = torch.tensor([[0.0, 7.0], [1.0, 7.0]])
    assert bool(fit_logistic(constant, torch.tensor([False, True]), 0.1).isfinite().all())


def test_shares_and_counts_are_the_same_prior():
    expected = torch.tensor([0.25, 0.75, 0.0], dtype=torch.float64).log()
    torch.testing.assert_close(log_prior([0.25, 0.75, 0], 3), expected)
    torch.testing.assert_close(log_prior(torch.tensor([5, 15, 0]), 3), expected)
    for prior in ([1.0, 2.0], [1.0, -2.0, 3.0], [1.0, 2.0, math.inf], [0.0, 0.0, 0.0]):
        with refusal_of("prior"):
            log_prior(prior, 3)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(any))
def test_shares_are_between_uniform_and_the_counts(counts):
    shares = label_shares(torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)), len(counts))
    assert sum(shares) == pytest.approx(1)
    for share, count in zip(shares, counts, strict=True):
        low, high = sorted([1 / len(counts), count / sum(counts)])
        assert low - 1e-12 <= share <= high + 1e-12
        assert share > 0


def test_chance_keeps_shares_even_and_large_counts_do_not():
    drawn = torch.randint(1000, (1500,), generator=torch.Generator().manual_seed(0))  # from 0 to 7 of each label
    shares = 1000 * torch.tensor(label_shares(drawn, 1000))
    assert 0.9 < float(shares.min()) <= float(shares.max()) < 1.3
    uneven = torch.arange(4).repeat_interleave(torch.tensor([700, 200, 90, 10]))
    assert label_shares(uneven, 5) == pytest.approx([0.7, 0.2, 0.09, 0.01, 0], abs=0.005)


@given(st.integers(0, 999), st.lists(st.integers(1, 5), min_size=1, max_size=4), st.floats(0.01, 1.0))
def test_the_covariance_within_labels_is_unbiased_and_shrunk(seed, sizes, shrinkage):
    """Of n items of C labels, the sum of squares is divided by n - C, as each centre takes one item."""
    labels = 3 * torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    means = torch.randn(len(labels), 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    parts = [means[labels == label] for label in labels.unique()]
    within = sum((part - part.mean(0)).T @ (part - part.mean(0)) for part in parts) / max(1, len(labels) - len(sizes))
    expected = (1 - shrinkage) * within + shrinkage * torch.eye(3).double() * within.trace().clamp_min(3e-12) / 3
    found = fit_known(means, labels, shrinkage)
    torch.testing.assert_close(found.centres, torch.stack([part.mean(0) for part in parts]))
    torch.testing.assert_close(torch.linalg.inv(found.precision), expected, rtol=1e-6, atol=1e-15)
    offsets = means[:, None] - found.centres
    distances = torch.einsum("nci,ij,ncj->nc", offsets, found.precision, offsets).amin(1)
    torch.testing.assert_close(found.distance(means), distances, rtol=1e-6, atol=1e-4 * float(distances.max()))


def test_class_densities_are_those_of_each_labels_own_gaussian_if_items_are_many():
    draws = torch.Generator().manual_seed(0)
    places, spreads = torch.tensor([[0.0, 0.0], [3.0, 0.0]]).double(), torch.tensor([[1.0, 0.1], [0.5, 2.0]]).double()
    labels = torch.arange(8000) % 2
    known = places[labels] + spreads[labels] * torch.randn(8000, 2, generator=draws, dtype=torch.float64)
    means = torch.tensor([[0.5, 0.2], [3.0, 3.0]]).double()
    found = class_densities(means, known, 2 * labels, 3)
    for label, (place, spread) in enumerate(zip(places, spreads, strict=True)):
        expected = torch.distributions.Normal(place, spread).log_prob(means).sum(dim=1)
        torch.testing.assert_close(found[:, 2 * label], expected, rtol=0.15, atol=0)
    assert found[:, 1].tolist() == [-math.inf] * 2
    # High above label 0, which is the narrower one. In one component, along the first axis, the height has no effect.
    above = torch.tensor([[0.0, 20.0]])
    answers = {count: int(class_densities(above, known, labels, 2, count).argmax()) for count in (1, 2)}
    assert answers == {1: 0, 2: 1}
