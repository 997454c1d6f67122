"""Statistics of a suite's rows against scikit-learn and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn import metrics as theirs

from prolip.evaluation.row_statistics import STATISTICS, f1_macro, group_means, mean_per_group, worst_group

PREDICTIONS = st.integers(1, 40).flatmap(
    lambda count: st.tuples(*[st.lists(st.integers(0, 5), min_size=count, max_size=count)] * 2)
)


@given(PREDICTIONS)
def test_row_statistics_equal_scikit_learns(given: tuple[list[int], list[int]]) -> None:
    predicted, labels = (torch.tensor(side) for side in given)
    hits = (predicted == labels).double()
    recalls = theirs.recall_score(labels, predicted, labels=sorted(set(given[1])), average=None)
    assert mean_per_group(hits, labels) == pytest.approx(float(np.mean(recalls)), abs=1e-12)
    assert worst_group(hits, labels) == pytest.approx(float(np.min(recalls)), abs=1e-12)
    assert f1_macro(predicted.double(), labels) == pytest.approx(
        theirs.f1_score(labels, predicted, labels=sorted(set(given[1])), average="macro"), abs=1e-12
    )
    assert group_means(hits, labels).tolist() == pytest.approx(recalls.tolist(), abs=1e-12)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), min_size=3, max_size=30))
def test_rank_correlation_equals_scipys(pairs: list[tuple[int, int]]) -> None:
    items, lengths = (torch.tensor(side) for side in zip(*pairs, strict=True))
    if len(set(items.tolist())) > 1 and len(set(lengths.tolist())) > 1:
        expected = float(spearmanr(items, lengths).statistic)
        assert STATISTICS["rank_correlation"](items.double(), lengths) == pytest.approx(expected, abs=1e-12)
