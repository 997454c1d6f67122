"""Models side by side: values, differences and their intervals, in the three result files; finished tasks."""

import json
import math

import pytest
import torch
from scipy.stats import binomtest
from tests.support.refusals import refusal_of
from tests.support.suite_results import COUNT, hits, result, row

from prolip.evaluation.result_files import write_results
from prolip.evaluation.results import (
    Chart,
    Row,
    RowId,
    TaskCache,
    TaskResult,
    compare,
    difference,
    judged,
    mean_row,
    row_of_items,
)
from prolip.metrics.statistics import STATISTICS
from prolip.report.page import Cell
from prolip.report.results import result_sections

# ---- Intervals ------------------------------------------------------------------------------------------------------


def test_an_interval_holds_95_percent_of_the_paired_resamples():
    """Of a mean about 1.96 standard errors either way; of a difference those of the items' differences."""
    first, other = hits(0.5), hits(0.8)
    (figure,) = compare([result("a", row("m", "t", first)), result("b", row("m", "t", other))])
    for found, items in ((figure.values[0], first), (figure.differences[0], other - first)):
        error = float(items.std()) / COUNT**0.5
        assert found.value == pytest.approx(float(items.mean()))
        assert found.low == pytest.approx(float(items.mean()) - 1.96 * error, abs=0.25 * error)
        assert found.high == pytest.approx(float(items.mean()) + 1.96 * error, abs=0.25 * error)


@pytest.mark.parametrize(("right", "count"), [(0, 9), (7, 9), (9, 9)])
def test_a_share_has_wilsons_interval(right, count):
    (figure,) = compare([result("a", row("m", "t", torch.arange(count) < right))])
    expected = binomtest(right, count).proportion_ci(method="wilson")
    assert figure.values[0][1:] == pytest.approx((expected.low, expected.high), abs=1e-4)


def test_a_model_differs_from_itself_by_exactly_zero():
    groups = torch.arange(400) % 2
    rows = [row(name, "t", hits(0.5), None if name == "mean" else groups, name) for name in STATISTICS]
    for figure in compare([result("a", *rows), result("b", *rows)], num_resamples=50):
        assert figure.differences[0] == (0.0, 0.0, 0.0)


def test_means_and_differences_of_rows_are_resampled_from_their_parts():
    better = hits(0.5).clone()
    better[:20] = 1.0
    rows = [
        row("share", "t", hits(0.5)),
        row_of_items(RowId("share", data="t", by="other"), better),
        row("share", "u", hits(0.7, 1)),
    ]
    mean, gain = (rows[0].value + rows[2].value) / 2, rows[1].value - rows[0].value
    combined = [
        mean_row(RowId("mean", data="all"), [rows[0], rows[2]], 2),
        difference(rows[0], rows[1]),
        Row(id=RowId("open", data="all"), value=0.5, num_items=2, mean_of=[rows[0].id, RowId("given")]),
        Row(id=RowId("given"), value=0.5, num_items=9),
    ]
    assert combined[0].value == mean
    found = [figure.values[0] for figure in compare([result("a", *rows, *combined)], num_resamples=200)]
    widths = [value.high - value.low for value in found]
    assert widths[3] < min(widths[0], widths[2])
    assert 0 < found[4].low < found[4].value == gain < found[4].high
    assert widths[4] < widths[0] / 3
    assert math.isnan(found[5].low)


def test_figures_of_different_items_have_no_difference_interval():
    def averaged(model, tasks):
        rows = {task: row("m", task, hits(0.5)) for task in ("one", "two", "three")}
        return result(model, *rows.values(), mean_row(RowId("m", data="all"), [rows[task] for task in tasks], 2))

    fewer = row("m", "t", hits(0.5)[1:])
    for first, other in (
        (result("a", row("m", "t", hits(0.5))), result("b", fewer)),
        (averaged("a", ["one", "two"]), averaged("b", ["one", "three"])),
    ):
        figure = compare([first, other], num_resamples=20)[-1]
        assert math.isfinite(figure.values[1].low)
        assert figure.differences[0].value == figure.values[1].value - figure.values[0].value
        assert math.isnan(figure.differences[0].low)


def test_rows_of_one_task_share_resamples_and_the_seed_fixes_them():
    rows = result("a", *(row(metric, task, 2 * hits(0.5)) for task, metric in ["xm", "xn", "ym"]))
    one, other, two = (figure.values[0] for figure in compare([rows], num_resamples=50))
    assert one == other
    assert one[1:] != two[1:]
    assert compare([rows], num_resamples=50)[0].values[0] == one
    assert compare([rows], num_resamples=50, seed=2**64 - 1)[0].values[0][1:] != one[1:]
    assert all(map(math.isnan, compare([rows], num_resamples=0)[0].values[0][1:]))


@pytest.mark.parametrize(
    ("right", "count", "num_known", "verdict"),
    [
        (850, 1000, math.inf, "below"),
        (85, 100, math.inf, "too few"),
        (85, 100, 100, "too few"),
        (160, 200, math.inf, "below"),
        (160, 200, 40, "too few"),
        (3, 3, math.inf, "too few"),
        (40, 40, 99, "holds"),
        (759, 843, 200, "holds"),
    ],
)
def test_a_promise_holds_is_broken_or_has_too_few_items(right, count, num_known, verdict):
    found = judged(row("m", "t", torch.arange(count) < right), 0.9, num_known)
    assert (found.verdict, found.baselines) == (verdict, {"promised": 0.9})


# ---- Files ----------------------------------------------------------------------------------------------------------


def test_json_markdown_and_html_results_agree(tmp_path):
    chart = Chart(group="A curve", text="It rises.", svg='<svg class="chart"><path d="M0 0"/></svg>')
    one = row("accuracy", "food <101>", hits(0.5), main=True)
    number = Row(id=RowId("mean_uncertainty", data="food <101>"), value=-0.0123456, num_items=400)
    results = [
        result("ours", one, number, charts=(chart,)),
        result("baseline", one, notes=("uncertainty: it has no variances",)),
    ]
    told = write_results(tmp_path, results, num_resamples=50, seed=0)
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["figures"][1]["value"] == {"ours": number.value, "baseline": None}
    table = (tmp_path / "results.md").read_text()
    assert f"| food <101> | accuracy | 400 | {100 * one.value:.2f} (" in table
    assert "| food <101> | mean uncertainty | 400 | −0.01235 | – | – |" in table
    assert "- baseline: uncertainty: it has no variances" in table
    assert "baseline: uncertainty: it has no variances" in told
    page = (tmp_path / "results.html").read_text()
    assert "food &lt;101&gt;" in page
    assert chart.svg in page
    assert "http" not in page, "it asks nobody for anything"
    assert "<title>baseline minus ours</title>" in page
    with refusal_of("checkpoint"):
        write_results(tmp_path, [result("a"), result("a")], num_resamples=0, seed=0)


def test_promises_come_first_with_a_verdict_for_each_model(tmp_path):
    other = Row(id=RowId("n", data="t"), value=0.5, num_items=9, main=True)
    both = [
        result(name, judged(row("m", "t", torch.arange(100) < right, main=True), 0.9, math.inf), other)
        for name, right in (("a", 50), ("b", 99))
    ]
    told = write_results(tmp_path, both[:1], num_resamples=0, seed=0)
    assert told[2:4] == ["| t | m | 90.00 | 50.00 | below | 100 |", "| t | n | – | 50.00 | – | 9 |"]
    assert "warning" in told[-1]
    sections = result_sections(json.loads((tmp_path / "results.json").read_text()))
    assert Cell("verdict") in sections[0].table[0], "the table comes first on the page, not cards"
    _, _, first, *_ = write_results(tmp_path, both, num_resamples=0, seed=0)
    assert first.startswith("| t | m | 90.00 | 50.00 | below | 99.00 | holds | 100 |")


# ---- Finished tasks -------------------------------------------------------------------------------------------------


def test_a_finished_task_is_not_run_again(tmp_path, monkeypatch):
    calls = []

    def compute():
        calls.append(1)
        groups = torch.arange(400) % 3
        return TaskResult(rows=[row("m", "t", hits(0.5), groups, "worst_group")], notes=["note"])

    cache, long = TaskCache(tmp_path / "tasks"), "a/long/path/" * 40
    first = cache.get_or_run("vtab/dtd", ["x", torch.ones(2)], compute)
    assert cache.get_or_run("vtab/dtd", ["x", torch.ones(2)], compute) == first
    assert len(calls) == 1
    for name, key in (("vtab/dtd", ["x", torch.zeros(2)]), (f"{long}a", {}), (f"{long}b", {}), ("pets", {})):
        cache.get_or_run(name, key, compute)
    assert len(calls) == 5
    (path,) = (tmp_path / "tasks").glob("pets-*.json")
    path.write_text("{}")  # damaged
    cache.get_or_run("pets", {}, compute)
    monkeypatch.setattr("prolip.evaluation.results.version", lambda _: "0.0.1")
    cache.get_or_run("pets", {}, compute)
    assert len(calls) == 7

    def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cache.get_or_run("new", {}, fail)
    assert not list((tmp_path / "tasks").glob("new*"))
