"""Statistics against scikit-learn, scipy and loops; the same on counted resamples; bootstrap intervals."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.stats import spearmanr
from sklearn import metrics as theirs

from prolip.metrics import statistics
from prolip.metrics.statistics import (
    STATISTICS,
    bootstrap,
    mean,
    pearson,
    rank_of_first_correct,
    ratio,
    resample,
    sorted_means,
    spearman,
    value_of,
)

T = torch.tensor
DRAWS = torch.Generator().manual_seed(0)
PREDICTIONS = st.integers(1, 40).flatmap(
    lambda count: st.tuples(*[st.lists(st.integers(0, 5), min_size=count, max_size=count)] * 2)
)


def repeated(columns, counts):
    return [column.repeat_interleave(counts.long(), dim=0) for column in columns]


@pytest.mark.parametrize("name", STATISTICS)
@pytest.mark.parametrize("rounded", [False, True])
def test_a_statistic_of_counts_equals_that_of_the_resampled_items(name, rounded):
    items = torch.rand(40, generator=DRAWS, dtype=torch.float64)
    items = (items * 5).round() / 5 if rounded else items
    groups = (torch.rand(40, generator=DRAWS) < 0.4).long()
    columns = (items,) if name == "mean" else (groups if name == "f1_macro" else items, groups)
    counts = torch.stack([torch.randint(40, (40,), generator=DRAWS).bincount(minlength=40) for _ in range(9)]).double()
    expected = [value_of(STATISTICS[name], *repeated(columns, row)) for row in counts]
    torch.testing.assert_close(STATISTICS[name](*columns, counts), T(expected, dtype=torch.float64))


@given(PREDICTIONS)
def test_statistics_of_classes_equal_scikit_learns(given):
    predicted, labels = (T(side) for side in given)
    hits, occurring = (predicted == labels).double(), sorted(set(given[1]))
    recalls = theirs.recall_score(labels, predicted, labels=occurring, average=None)
    assert value_of(STATISTICS["mean_per_group"], hits, labels) == pytest.approx(float(np.mean(recalls)))
    assert value_of(STATISTICS["worst_group"], hits, labels) == pytest.approx(float(np.min(recalls)))
    f1 = theirs.f1_score(labels, predicted, labels=occurring, average="macro")
    assert value_of(STATISTICS["f1_macro"], predicted.double(), labels) == pytest.approx(f1)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 4)), min_size=2, max_size=30))
def test_correlations_and_auroc_equal_those_of_other_packages(pairs):
    a, b = (T(side).double() for side in zip(*pairs, strict=True))
    constant = bool((a == a[0]).all() or (b == b[0]).all())
    expected = math.nan if constant else float(spearmanr(a, b).statistic)
    assert spearman(a, b) == pytest.approx(expected, nan_ok=True)
    expected = math.nan if constant else float(np.corrcoef(a, b)[0, 1])
    assert pearson(a, b) == pytest.approx(expected, abs=1e-12, nan_ok=True)
    positive = b > 1
    expected = float(theirs.roc_auc_score(positive, a)) if 0 < int(positive.sum()) < len(b) else math.nan
    assert value_of(STATISTICS["auroc"], a, positive) == pytest.approx(expected, nan_ok=True)
    expected = float(theirs.average_precision_score(positive, a)) if bool(positive.any()) else math.nan
    assert value_of(STATISTICS["average_precision"], a, positive) == pytest.approx(expected, nan_ok=True)


def test_a_correlation_of_a_constant_is_nan():
    # 0.1 has a rounding spread.
    assert math.isnan(pearson(torch.full((7,), 0.1), torch.arange(7)))
    assert math.isnan(pearson(T([1.0]), T([2.0])))


@pytest.mark.parametrize("seed", range(4))
def test_risk_coverage_is_the_mean_over_all_orders_of_equal_items(seed):
    noise = torch.Generator().manual_seed(seed)
    uncertainty, correct = torch.randint(3, (6,), generator=noise).float(), torch.randint(2, (6,), generator=noise)
    areas = []
    for order in itertools.permutations(range(6)):
        walked = sorted(order, key=lambda i: float(uncertainty[i]))
        areas.append(sum(sum(1 - int(correct[i]) for i in walked[:k]) / k for k in range(1, 7)) / 6)
    assert value_of(STATISTICS["risk_coverage"], uncertainty, correct) == pytest.approx(sum(areas) / len(areas))
    best = value_of(STATISTICS["risk_coverage"], 1 - correct, correct)
    found = value_of(STATISTICS["excess_risk_coverage"], uncertainty, correct)
    assert found == pytest.approx(sum(areas) / len(areas) - best)


@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=20))
def test_a_confidence_on_an_edge_is_in_the_bin_below_it(items):
    gaps = [0.0] * 4
    for eighths, correct in items:
        gaps[next(place for place in range(4) if eighths <= 2 * place + 2)] += correct - eighths / 8
    confidence, correct = (T(side, dtype=torch.float64) for side in ([e / 8 for e, _ in items], [c for _, c in items]))
    found = value_of(partial(STATISTICS["calibration_error"], num_bins=4), confidence, correct)
    assert found == pytest.approx(sum(map(abs, gaps)) / len(items))


@pytest.mark.parametrize("name", ["calibration_error", "equal_mass_error"])
@pytest.mark.parametrize("count", [7, 200])
def test_calibration_errors_equal_a_loop_over_bins(name, count):
    confidence = torch.rand(count, generator=DRAWS, dtype=torch.float64)
    confidence[:3] = T([0.0, 1.0, 0.5], dtype=torch.float64)
    correct = torch.randint(2, (count,), generator=DRAWS)
    place = (confidence * 15).ceil().clamp_min(1)
    if name == "equal_mass_error":
        edges = torch.linspace(0, count, min(15, count) + 1).round()
        place = torch.bucketize(confidence.argsort().argsort().float(), edges, right=True)
    gaps = [float((correct - confidence)[place == one].sum()) for one in place.unique()]
    assert value_of(STATISTICS[name], confidence, correct) == pytest.approx(sum(map(abs, gaps)) / count)


def test_confidences_outside_0_and_1_and_nan_are_refused():
    for name, column in (
        ("calibration_error", T([1.1])),
        ("calibration_error", T([math.nan])),
        ("auroc", T([math.nan])),
    ):
        with pytest.raises(ValueError, match=r"confidences|values|scores"):
            value_of(STATISTICS[name], column, torch.ones(1))
    with pytest.raises(ValueError, match="values"):
        sorted_means(T([0.1, math.nan]), torch.ones(2))


def test_resamples_are_drawn_by_the_seed_in_blocks_of_any_size(monkeypatch):
    parts, sizes = torch.randint(4, (37,), generator=DRAWS), torch.randint(1, 4, (37,), generator=DRAWS)
    whole = resample(ratio, parts, sizes, num_resamples=25, seed=3)
    draws = torch.Generator().manual_seed(3)
    rows = [torch.randint(37, (37,), generator=draws) for _ in range(25)]
    assert whole.tolist() == pytest.approx([float(parts[row].sum() / sizes[row].sum()) for row in rows])
    monkeypatch.setattr(statistics, "_BLOCK", 37 * 7)
    torch.testing.assert_close(resample(ratio, parts, sizes, num_resamples=25, seed=3), whole)
    for items, count in ((torch.ones(0), 5), (torch.ones(2), 0)):
        with pytest.raises(ValueError, match="num_resamples"):
            resample(mean, items, num_resamples=count)


def test_an_interval_skips_undefined_resamples_and_may_end_at_infinity():
    few = T([0.0, 1.0])  # half of the resamples are constant
    found = bootstrap(STATISTICS["rank_correlation"], few, few, num_resamples=40)
    assert (found.low, found.high) == (pytest.approx(1.0), pytest.approx(1.0))
    assert all(map(math.isnan, bootstrap(ratio, torch.zeros(3), torch.zeros(3), num_resamples=5)))
    # A loss is infinite where the right label has the probability 0.
    infinite = bootstrap(mean, T([0.5, 1.0, 1.5, math.inf]), num_resamples=50)
    assert infinite.value == infinite.high == math.inf
    assert 0.5 <= infinite.low <= 1.5


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
        ([1.0, 2.0, 3.0], [0, 0, 0], None),
        ([math.nan, 2.0, 3.0], [1, 0, 0], None),
    ],
)
def test_rank_of_first_correct_counts_better_and_equal_candidates(scores, correct, rank):
    given = T([scores]), T([correct]).bool()
    if rank is None:
        with pytest.raises(ValueError, match=r"scores|correct"):
            rank_of_first_correct(*given)
    else:
        assert rank_of_first_correct(*given).tolist() == [rank]
