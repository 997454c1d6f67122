"""The promises of a search in simulation, with exact distributions: two hundred calibrations, each on new queries."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from prolip.calibration.calibration import Subject
from prolip.calibration.search import KnownQueries, SearchCalibration, fit_queries

RUNS, KNOWN, NEW, IMAGES = 200, 150, 400, 60


def drawn(count, images, seed):
    """Scores of the ten nearest right and wrong images of queries, which differ in how far everything is from them."""
    draws = torch.Generator().manual_seed(seed)
    centre = torch.randn(count, 1, generator=draws, dtype=torch.float64)
    number = torch.randint(1, 4, (count, 1), generator=draws)
    right = centre + 1.5 + torch.randn(count, 10, generator=draws, dtype=torch.float64)
    right[torch.arange(10) >= number] = -math.inf
    wrong = centre + torch.randn(count, images, generator=draws, dtype=torch.float64)
    return right.sort(dim=1, descending=True).values, wrong.topk(10, dim=1).values


def of(known):
    none, subject = KnownQueries(*torch.zeros(3, 0).double()), Subject("model", "digest", "photos", [], [])
    return SearchCalibration(subject=subject, score="csd", num_images=IMAGES, text=known, image=none)


def calibrated(seed):
    right, wrong = drawn(KNOWN, IMAGES, seed)
    return of(KnownQueries(right[:, 0], wrong[:, 0], torch.zeros(2)))


def interval(place, size):
    """The central 97.5 % of how many of `size` new scores are below the `place`-th of `KNOWN`: beta-binomial."""
    count = torch.arange(size + 1, dtype=torch.float64)
    a, b = torch.tensor(float(place)), torch.tensor(float(KNOWN + 1 - place))

    def beta(one, other):
        return one.lgamma() + other.lgamma() - (one + other).lgamma()

    ways = -beta(count + 1, size - count + 1) - math.log(size + 1)
    below = (ways + beta(count + a, size - count + b) - beta(a, b)).exp().cumsum(0)
    return int((below < 0.0125).sum()), int((below < 0.9875).sum())


@pytest.mark.parametrize("share", [0.8, 0.9, 0.95])
def test_both_promises_hold_as_often_as_chance_allows(share):
    low, high = interval(math.ceil((KNOWN + 1) * share - 1e-9), NEW)
    assert 0.8 * share < low / NEW < share < high / NEW
    inside = torch.zeros(2)
    for seed in range(RUNS):
        found = calibrated(2 * seed)
        limits = found.limits("text", IMAGES, contains_right=share, max_wrong=1 - share)
        right, wrong = drawn(NEW, IMAGES, 2 * seed + 1)
        kept = torch.stack([(right[:, 0] >= limits.within).sum(), (wrong[:, 0] <= limits.shown).sum()])
        inside += (low <= kept) & (kept <= high)
    assert inside.amin() >= 0.95 * RUNS


def test_restraint_holds_in_a_collection_that_is_larger_than_the_known_one():
    shown = []
    for seed in range(RUNS):
        found = calibrated(2 * seed)
        limits, same = (found.limits("text", size, max_wrong=0.2) for size in (4 * IMAGES, IMAGES))
        wrong = drawn(NEW, 4 * IMAGES, 2 * seed + 1)[1][:, 0]
        shown.append([(wrong > some.shown).double().mean() for some in (limits, same)])
    kept, broken = torch.tensor(shown).mean(dim=0)
    assert 0.02 < kept <= 0.2
    assert broken > 0.25


def test_what_the_results_contain_if_nothing_wrong_is_shown_is_estimated():
    errors = []
    for seed in range(RUNS):
        limits = calibrated(2 * seed).limits("text", IMAGES, contains_right=0.9, max_wrong=0.1)
        right, wrong = (some[:, 0] for some in drawn(NEW, IMAGES, 2 * seed + 1))
        kept = (torch.maximum(right, wrong) > limits.shown) & (right >= limits.within)
        errors.append(float(kept.double().mean()) - limits.contained)
    assert limits.contained < 0.5, "both promises cannot hold here"
    assert abs(sum(errors) / RUNS) < 0.01


@given(st.floats(0, 1), st.integers(0, 99))
@settings(max_examples=10)
def test_probabilities_agree_with_the_results_of_queries_that_may_match_nothing(share, seed):
    found = of(fit_queries(*drawn(3000, IMAGES, seed), absent_share=share))
    right, wrong = drawn(3000, IMAGES, seed + 1)
    right[: int(3000 * share)] = -math.inf
    scores, places = torch.cat([right, wrong], dim=1).sort(dim=1, descending=True)
    shown, correct = scores[:, :10], (places < 10)[:, :10]
    probability = found.probability("text", shown, IMAGES)
    assert abs(float(probability.mean() - correct.double().mean())) < 0.01
    top = probability > 0.1
    assert abs(float(probability[top].sum() - correct[top].sum())) <= 0.15 * float(top.sum()) + 5
    odds = (some / (1 - some) for some in (probability, found.probability("text", shown, 3 * IMAGES)))
    assert torch.allclose(next(odds), 3 * next(odds))
