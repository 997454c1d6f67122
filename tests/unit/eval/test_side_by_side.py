"""Three models side by side: which difference stands where, what its interval is, and how the files say it."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torch import Tensor

from prolip.suites.compare import compare
from prolip.suites.config import SuiteOptions
from prolip.suites.result_files import table_row, write_results
from prolip.suites.results import Chart, Row, SuiteResult, TaskCache, row_of_items
from prolip.suites.row_statistics import STATISTICS
from prolip.suites.run import run_suite

COUNT = 300


def hits(share: float, seed: int = 0) -> Tensor:
    return (torch.rand(COUNT, generator=torch.Generator().manual_seed(seed)) < share).double()


def result(model: str, *rows: Row, notes: tuple[str, ...] = (), charts: tuple[Chart, ...] = ()) -> SuiteResult:
    return SuiteResult(
        suite="toy", model=model, fingerprint=f"f-{model}", rows=list(rows), notes=list(notes), charts=list(charts)
    )


def three(main: bool = True) -> list[SuiteResult]:
    """Models of 50, 80 and 20 percent, whose names come in no order; the last one lacks a figure."""
    labels = torch.arange(COUNT) % 3
    made = []
    for model, share in (("m|ddle", 0.5), ("best", 0.8), ("a last", 0.2)):
        rows = [row_of_items("set | one", "accuracy", hits(share), main=main)]
        if model != "a last":
            rows.append(row_of_items("set | one", "recall", hits(share), labels, statistic="mean_per_group"))
        chart = Chart(title="A curve", text=f"of {model}", svg=f'<svg id="{model[0]}"></svg>')
        made.append(result(model, *rows, notes=(f"left out by {model}",), charts=(chart,)))
    return made


def test_every_model_is_compared_with_the_first() -> None:
    accuracy, recall = compare(three(), num_resamples=200)
    values = [float(hits(share).mean()) for share in (0.5, 0.8, 0.2)]
    assert [value.value for value in accuracy.values] == values
    assert [value.value for value in accuracy.differences] == [values[1] - values[0], values[2] - values[0]]
    assert [math.isnan(value.value) for value in (*recall.values, *recall.differences)] == [0, 0, 1, 0, 1]
    for value in (*accuracy.values, *accuracy.differences):
        assert value.low < value.value < value.high


def test_an_interval_holds_95_percent_of_the_paired_resamples() -> None:
    """Of a mean about 1.96 standard errors either way; of a difference those of the items' differences."""
    first, other = hits(0.5), hits(0.8)
    (figure,) = compare([result("a", row_of_items("t", "m", first)), result("b", row_of_items("t", "m", other))])
    for found, items in ((figure.values[0], first), (figure.differences[0], other - first)):
        error = float(items.std()) / COUNT**0.5
        assert found.low == pytest.approx(float(items.mean()) - 1.96 * error, abs=0.25 * error)
        assert found.high == pytest.approx(float(items.mean()) + 1.96 * error, abs=0.25 * error)


def test_the_seed_decides_the_resamples_and_none_gives_no_interval() -> None:
    rows = result("a", row_of_items("t", "m", hits(0.5)))
    found = [compare([rows], num_resamples=40, seed=seed)[0].values[0] for seed in (0, 0, 1)]
    assert found[0] == found[1]
    assert found[0][1:] != found[2][1:]
    none = compare([rows, rows], num_resamples=0)[0]
    assert none.values[0].value == float(hits(0.5).mean())
    assert all(map(math.isnan, (*none.values[0][1:], *none.differences[0][1:])))


def test_an_average_has_an_interval_where_all_of_its_parts_have_one() -> None:
    sure, unsure = row_of_items("one", "m", hits(0.3)), Row(task="two", metric="m", value=0.5, num_items=9)
    average = Row(task="all", metric="m", value=0.4, num_items=2, mean_of=[sure.key, unsure.key])
    figure = compare([result("a", sure, unsure, average)], num_resamples=20)[-1]
    assert figure.values[0].value == 0.4
    assert math.isnan(figure.values[0].low)


def test_an_average_over_other_tasks_has_no_interval_of_its_difference() -> None:
    def averaged(model: str, tasks: list[str]) -> SuiteResult:
        rows = [row_of_items(task, "m", hits(0.5)) for task in ("one", "two", "three")]
        of = [f"{task}: m" for task in tasks]
        return result(model, *rows, Row(task="all", metric="m", value=0.5, num_items=2, mean_of=of))

    figure = compare([averaged("a", ["one", "two"]), averaged("b", ["one", "three"])], num_resamples=20)[-1]
    assert figure.differences[0].value == 0
    assert math.isnan(figure.differences[0].low)


def test_a_difference_on_other_items_has_no_interval() -> None:
    """As where one model could read a picture and the other could not: the draws are of other pictures."""
    fewer = row_of_items("t", "m", hits(0.5)[1:])
    (figure,) = compare([result("a", row_of_items("t", "m", hits(0.5))), result("b", fewer)], num_resamples=20)
    assert math.isfinite(figure.values[1].low)
    assert figure.differences[0].value == figure.values[1].value - figure.values[0].value
    assert math.isnan(figure.differences[0].low)


def test_two_rows_of_one_name_are_a_bug() -> None:
    row = row_of_items("t", "m", hits(0.5))
    with pytest.raises(AssertionError, match="a key names one row"):
        compare([result("a", row, row)], num_resamples=0)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), min_size=3, max_size=30))
def test_the_rank_correlation_is_scipys(pairs: list[tuple[int, int]]) -> None:
    items, lengths = (torch.tensor(side) for side in zip(*pairs, strict=True))
    if len(set(items.tolist())) > 1 and len(set(lengths.tolist())) > 1:
        expected = float(spearmanr(items, lengths).statistic)
        assert STATISTICS["rank_correlation"](items.double(), lengths) == pytest.approx(expected, abs=1e-12)


def test_the_files_of_three_models(tmp_path: Path) -> None:
    results = three()
    told = write_results(tmp_path, results, num_resamples=100, seed=0)
    found = json.loads((tmp_path / "results.json").read_text())
    accuracy, recall = found["figures"]
    assert found["models"] == {"m|ddle": "f-m|ddle", "best": "f-best", "a last": "f-a last"}
    assert list(accuracy["value"]) == ["m|ddle", "best", "a last"]
    assert list(accuracy["difference"]) == ["best", "a last"]
    assert accuracy["difference"]["best"] > 0 > accuracy["difference"]["a last"]
    assert accuracy["difference_low"]["best"] < accuracy["difference"]["best"] < accuracy["difference_high"]["best"]
    assert recall["value"]["a last"] is None
    assert recall["difference"]["a last"] is None

    table = (tmp_path / "results.md").read_text()
    head, line, row = re.findall(r"^\|.*$", table.split("## Main figures")[1], re.MULTILINE)[:3]
    cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
    assert [cell.strip() for cell in re.split(r"(?<!\\)\|", head)[1:-1]] == [
        "task", "metric", "items", r"m\|ddle", "best", "a last", r"best − m\|ddle", r"a last − m\|ddle"
    ]  # fmt: skip
    assert line.count("|") == len(cells) + 1
    assert cells[:3] == [r"set \| one", "accuracy", "300"]
    percent = [100 * float(hits(share).mean()) for share in (0.5, 0.8, 0.2)]
    for cell, value in zip(cells[3:6], percent, strict=True):
        assert cell.startswith(f"{value:.2f} (")
    for cell, value in zip(cells[6:], (percent[1] - percent[0], percent[2] - percent[0]), strict=True):
        assert cell.startswith(f"{value:+.2f} (".replace("-", "−"))
    rest = table.split("## All other figures")[1]
    assert rest.count("–") == 2, "the last model has no recall, and no difference of it"
    assert "accuracy" not in rest
    for model in ("m|ddle", "best", "a last"):
        assert f"- {model}: left out by {model}" in table
        assert f"{model}: left out by {model}" in told

    page = (tmp_path / "results.html").read_text()
    assert page.count("<td") == 2 * (1 + 3 + 2)
    assert page.count('class="decided"') == 3, "two differences of the accuracy, one of the recall"
    for model in ("best", "a last"):
        assert f"<title>{model} minus m|ddle</title>" in page
    spoken = re.findall(r"<desc>([^<]*)</desc>", page)
    assert not any("recall" in text for text in spoken), "the charts show main figures"
    assert [text.split(": ")[-1] for text in spoken[:2]] == [
        f"{percent[1] - percent[0]:+.2f}", f"{percent[2] - percent[0]:+.2f}"
    ]  # fmt: skip
    # An axis has no room for a model's name, which may be a long address.
    assert page.count(">points: right of 0 it is larger</text>") == 2
    assert page.index('<svg id="m">') < page.index('<svg id="b">') < page.index('<svg id="a">')
    assert [page.count(f"of {model}</figcaption>") for model in ("m|ddle", "best", "a last")] == [1, 1, 1]


def test_a_difference_is_decided_where_its_interval_leaves_zero_out() -> None:
    near = hits(0.5).clone()
    near[:1] = 1 - near[:1]
    results = [result("a", row_of_items("t", "m", hits(0.5))), result("b", row_of_items("t", "m", near))]
    (figure,) = compare([*results, result("c", row_of_items("t", "m", hits(0.9)))], num_resamples=200)
    row = table_row(figure)
    assert figure.differences[0].value != 0
    assert row.decided == [False, True]


def test_without_main_figures_the_terminal_shows_the_others(tmp_path: Path) -> None:
    told = write_results(tmp_path, three(main=False), num_resamples=0, seed=0)
    assert sum("accuracy" in line for line in told) == 1


def test_what_a_suite_is_told_reaches_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default they lie in evals/SUITE; the resamples are those of the options."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("prolip.suites.run.open_eval_model", lambda source, *_: SimpleNamespace(name=source))

    def run(model: Any, _: SuiteOptions, cache: TaskCache) -> SuiteResult:
        assert cache.folder.name == "tasks"
        return result(model.name, row_of_items("t", "m", hits(0.5)))

    found = []
    for seed, resamples in ((0, 30), (1, 30), (0, 31)):
        options = SuiteOptions(checkpoint=("a", "b"), seed=seed, num_resamples=resamples)
        said = run_suite("toy", options, run)
        assert said[-1] == "results: evals/toy/results.json, .md, .html"
        found.append(json.loads((tmp_path / "evals" / "toy" / "results.json").read_text())["figures"][0]["low"]["a"])
    assert len(set(found)) == 3
    run_suite("toy", SuiteOptions(checkpoint=("a",), out=tmp_path / "other", num_resamples=0), run)
    assert (tmp_path / "other" / "results.md").is_file()
