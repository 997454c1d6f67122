"""What all suites share: statistics of rows, what is kept of finished tasks, models side by side, the three files."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as theirs

from prolip.suites.compare import compare
from prolip.suites.result_files import write_results
from prolip.suites.results import Chart, Row, SuiteResult, TaskCache, TaskResult, row_of_items
from prolip.suites.row_statistics import STATISTICS, f1_macro, group_means, mean_per_group, worst_group

PREDICTIONS = st.integers(1, 40).flatmap(
    lambda count: st.tuples(*[st.lists(st.integers(0, 5), min_size=count, max_size=count)] * 2)
)


@settings(deadline=None)
@given(PREDICTIONS)
def test_statistics_are_scikit_learns(given: tuple[list[int], list[int]]) -> None:
    predicted, labels = (torch.tensor(side) for side in given)
    hits = (predicted == labels).double()
    recalls = theirs.recall_score(labels, predicted, labels=sorted(set(given[1])), average=None)
    assert mean_per_group(hits, labels) == pytest.approx(float(np.mean(recalls)), abs=1e-12)
    assert worst_group(hits, labels) == pytest.approx(float(np.min(recalls)), abs=1e-12)
    assert f1_macro(predicted.double(), labels) == pytest.approx(
        theirs.f1_score(labels, predicted, labels=sorted(set(given[1])), average="macro"), abs=1e-12
    )
    assert group_means(hits, labels).tolist() == pytest.approx(recalls.tolist(), abs=1e-12)


def result(model: str, *rows: Row, notes: tuple[str, ...] = (), charts: tuple[Chart, ...] = ()) -> SuiteResult:
    return SuiteResult(
        suite="toy", model=model, fingerprint="0", rows=list(rows), notes=list(notes), charts=list(charts)
    )


def hits(share: float, seed: int = 0, count: int = 400) -> torch.Tensor:
    return (torch.rand(count, generator=torch.Generator().manual_seed(seed)) < share).double()


def test_models_on_the_same_items_differ_by_less_than_each_is_unsure() -> None:
    shared = hits(0.5)
    better = shared.clone()
    better[:20] = 1.0
    compared = compare([result("a", row_of_items("t", "m", shared)), result("b", row_of_items("t", "m", better))])
    (figure,) = compared
    assert [value.value for value in figure.values] == [float(shared.mean()), float(better.mean())]
    (difference,) = figure.differences
    assert difference.value == pytest.approx(float(better.mean() - shared.mean()))
    assert difference.high - difference.low < (figure.values[0].high - figure.values[0].low) / 3
    assert 0 < difference.low < difference.value < difference.high


def test_a_model_against_itself_differs_by_exactly_nothing() -> None:
    rows = [
        row_of_items("t", statistic, hits(0.5), torch.arange(400) % 7, statistic=statistic) for statistic in STATISTICS
    ]
    for figure in compare([result("a", *rows), result("b", *rows)], num_resamples=50):
        assert figure.differences[0] == (0.0, 0.0, 0.0)


def test_averages_are_resampled_through_their_parts() -> None:
    rows = [row_of_items("one", "m", hits(0.3)), row_of_items("two", "m", hits(0.7, 1))]
    value = sum(row.value for row in rows) / 2
    rows.append(Row(task="all", metric="m", value=value, num_items=2, mean_of=[row.key for row in rows]))
    *parts, average = compare([result("a", *rows)], num_resamples=200)
    assert average.values[0].low < value < average.values[0].high
    widths = [figure.values[0].high - figure.values[0].low for figure in (*parts, average)]
    assert widths[2] < min(widths[:2])


def test_what_a_model_lacks_is_left_open() -> None:
    first, second = row_of_items("t", "m", hits(0.5)), row_of_items("t", "uncertainty", hits(0.5))
    others = Row(task="t", metric="m", value=0.75, num_items=7)
    compared = compare([result("a", first, second), result("b", others)], num_resamples=20)
    assert [figure.row.metric for figure in compared] == ["m", "uncertainty"]
    assert math.isnan(compared[1].values[1].value)
    assert math.isnan(compared[1].differences[0].value)
    assert compared[0].differences[0].value == pytest.approx(0.75 - first.value)
    assert math.isnan(compared[0].differences[0].low), "other items"


def test_tasks_draw_independently_and_metrics_of_a_task_alike() -> None:
    items = hits(0.5)
    one, other, two = compare(
        [result("a", *(row_of_items(task, metric, items) for task, metric in ["xm", "xn", "ym"]))], num_resamples=50
    )
    assert one.values == other.values
    assert one.values[0][1:] != two.values[0][1:]


def test_a_row_of_no_item_is_refused() -> None:
    with pytest.raises(ValueError, match="t: m needs at least one item"):
        row_of_items("t", "m", torch.zeros(0))


def test_a_finished_task_is_not_run_again(tmp_path: Path) -> None:
    calls = []

    def compute() -> TaskResult:
        calls.append(1)
        return TaskResult(rows=[row_of_items("t", "m", hits(0.5), torch.arange(400) % 3)], notes=["left out"])

    cache = TaskCache(tmp_path / "tasks")
    first = cache.get_or_run("vtab/dtd", {"model": "x", "data": 1}, compute)
    assert cache.get_or_run("vtab/dtd", {"data": 1, "model": "x"}, compute) == first
    assert len(calls) == 1
    cache.get_or_run("vtab/dtd", {"model": "y", "data": 1}, compute)
    cache.get_or_run("vtab/pets", {"model": "x", "data": 1}, compute)
    assert len(calls) == 3
    (path,) = (tmp_path / "tasks").glob("vtab_pets-*.json")
    path.write_text("{}")  # of another version
    cache.get_or_run("vtab/pets", {"model": "x", "data": 1}, compute)
    assert len(calls) == 4

    def fail() -> TaskResult:
        raise ValueError("no such folder")

    with pytest.raises(ValueError, match="no such folder"):
        cache.get_or_run("new", {}, fail)
    assert not list((tmp_path / "tasks").glob("new*"))


def test_the_files_say_the_same(tmp_path: Path) -> None:
    chart = Chart(title="A curve", text="It rises.", svg='<svg class="chart"><path d="M0 0"/></svg>')
    row = row_of_items("food <101>", "accuracy", hits(0.5), main=True)
    number = Row(task="food <101>", metric="uncertainty", value=-0.0123456, num_items=400, unit="number")
    results = [
        result("ours", row, number, charts=(chart,)),
        result("baseline", row, notes=("uncertainty: it has no variances",)),
    ]
    told = write_results(tmp_path, results, num_resamples=50, seed=0)
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["figures"][0]["value"] == {"ours": row.value, "baseline": row.value}
    assert found["figures"][0]["difference"] == {"baseline": 0.0}
    assert found["figures"][1]["value"] == {"ours": number.value, "baseline": None}
    table = (tmp_path / "results.md").read_text()
    percent = f"{100 * row.value:.2f}"
    assert f"| food <101> | accuracy | 400 | {percent} (" in table
    assert "| food <101> | uncertainty | 400 | −0.01235 | – | – |" in table
    assert "- baseline: uncertainty: it has no variances" in table
    assert "baseline: uncertainty: it has no variances" in told
    page = (tmp_path / "results.html").read_text()
    assert "food &lt;101&gt;" in page
    assert chart.svg in page
    assert "it has no variances" in page
    assert "http" not in page, "it asks nobody for anything"
    assert "<title>baseline minus ours</title>" in page


def test_one_name_stands_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="each model can be named once"):
        write_results(tmp_path, [result("a"), result("a")], num_resamples=0, seed=0)
