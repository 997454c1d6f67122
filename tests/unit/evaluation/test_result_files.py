"""The three result files of a suite, for one model and for several."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.support.suite_results import hits, result, three

from prolip.evaluation.result_files import write_results
from prolip.evaluation.results import Chart, Row, row_of_items


def test_json_markdown_and_html_results_agree(tmp_path: Path) -> None:
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


def test_two_results_with_one_model_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="each model can be named once"):
        write_results(tmp_path, [result("a"), result("a")], num_resamples=0, seed=0)


def test_result_files_compare_three_models(tmp_path: Path) -> None:
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
    assert cells[:3] == [r"set \| one", "accuracy", "400"]
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
    assert page.count("<td") == 2 * (2 + 3 + 2)
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


def test_the_terminal_shows_all_figures_if_none_is_main(tmp_path: Path) -> None:
    told = write_results(tmp_path, three(main=False), num_resamples=0, seed=0)
    assert sum("accuracy" in line for line in told) == 1
