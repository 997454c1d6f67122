"""Mixing weights: properties of expectation-maximisation, and a slow reference."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from tests.support.refusals import refusal_of

from prolip.metrics.mixture_weights import fit_weights, prior_weights

problems = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 10_000),
        "classes": st.integers(1, 5),
        "observations": st.integers(1, 12),
        "components": st.integers(1, 6),
        "spread": st.sampled_from([0.1, 1.0, 30.0, 3000.0]),
    }
)


def problem(seed, classes, observations, components, spread):
    generator = torch.Generator().manual_seed(seed)
    table = spread * torch.randn(classes, observations, components, generator=generator, dtype=torch.float64)
    start = torch.rand(classes, components, generator=generator, dtype=torch.float64) + 0.05
    counts = torch.randint(1, 4, (classes, observations), generator=generator).double()
    return table, start / start.sum(-1, keepdim=True), counts


def slow_weights(table, weights, counts, alpha, rounds, tolerance=1e-12):
    """One class, word by word."""
    for turn in range(1, rounds + 1):
        shares = torch.softmax(weights.log() + table, dim=-1)
        raised = ((counts[:, None] * shares).sum(0) + alpha - 1) / (counts.sum() + len(weights) * (alpha - 1))
        updated = raised.clamp_min(0)
        updated = updated / updated.sum()
        if float((updated - weights).norm()) <= tolerance:
            return weights, turn
        weights = updated
    return weights, rounds


@settings(max_examples=60)
@given(
    shape=problems,
    alpha=st.sampled_from([0.9, 1.0, 2.0, 100.0]),
    rounds=st.sampled_from([1, 3, 200]),
    tolerance=st.sampled_from([1e-12, 1e-4, 1e-2, 0.1]),
)
def test_batched_em_equals_a_loop_over_classes(shape, alpha, rounds, tolerance):
    table, start, counts = problem(**shape)
    counts = counts + 1  # enough that alpha = 0.9 keeps some weight
    found = fit_weights(table, start, counts=counts, alpha=alpha, tolerance=tolerance, max_rounds=rounds)
    for place in range(len(table)):
        slow, turns = slow_weights(table[place], start[place], counts[place], alpha, rounds, tolerance)
        torch.testing.assert_close(found.weights[place], slow, atol=1e-9, rtol=0)
        assert abs(int(found.rounds[place]) - turns) <= 2 * (tolerance == 1e-12)


def test_observations_of_a_dropped_component_go_to_the_next_best():
    """Its likelihood under all others is 0 in double precision; their logarithms still tell them apart."""
    table = torch.tensor([[[0.0, -5000.0, -5001.0, -6000.0], [-9000.0, 0.0, -5.0, -2.0]]], dtype=torch.float64)
    start = torch.full((1, 4), 0.25, dtype=torch.float64)
    counts = torch.tensor([[0.5, 3.0]], dtype=torch.float64)
    found = fit_weights(table, start, counts=counts, alpha=0.4, tolerance=1e-12, max_rounds=50)
    slow, _ = slow_weights(table[0], start[0], counts[0], 0.4, 50)
    assert slow[0] == 0
    torch.testing.assert_close(found.weights[0], slow)


@pytest.mark.parametrize(("prior", "power"), [("inverse_var", 1), ("inverse_var_squared", 2), ("inverse_var_fifth", 5)])
def test_priors_divide_by_powers_of_the_variance(prior, power):
    log_var = torch.randn(2, 4, 8, dtype=torch.float64) - 6
    expected = 1 / log_var.exp().pow(power).mean(-1)
    found = prior_weights(log_var, prior)
    torch.testing.assert_close(found, expected / expected.sum(-1, keepdim=True))


def test_impossible_problems_are_refused():
    points = torch.full((1, 2, 3), -math.inf)
    assert torch.equal(prior_weights(points, "uniform"), torch.full((1, 2), 0.5, dtype=torch.float64))
    with refusal_of("prior"):
        prior_weights(points, "inverse_var")
    table, start, counts = torch.zeros(1, 1, 8), torch.full((1, 8), 1 / 8), torch.ones(1, 1)
    with refusal_of("alpha"):
        fit_weights(table, start, counts=counts, alpha=0.1, tolerance=1e-12, max_rounds=5)
    with pytest.raises(ValueError, match="log_likelihoods"):
        fit_weights(table * math.nan, start, counts=counts, alpha=2.0, tolerance=1e-12, max_rounds=5)
