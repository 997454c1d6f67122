"""A custom task table for `prolip eval datacomp`: read, run, and its errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.datacomp_sets import TASKS, write_open_clip, write_task

from prolip.cli import main
from prolip.errors import UserError
from prolip.evaluation.classification import Answers
from prolip.evaluation.datacomp import AVERAGES, TABLE, Task, average_rows, read_tasks, task_rows
from prolip.evaluation.results import Row

COLUMNS = ["key", "name", "folders", "items", "metric", "group_column", "averages"]
GOOD = ["birds", "Garden birds", "wds_birds_test birds", "120", "worst_group", "2", "animals all"]


def write(path: Path, *lines: list[str], columns: list[str] = COLUMNS) -> Path:
    path.write_text("\n".join("\t".join(line) for line in [columns, *lines]) + "\n", encoding="utf-8")
    return path


def changed(column: str, value: str) -> list[str]:
    return [value if name == column else field for name, field in zip(COLUMNS, GOOD, strict=True)]


def test_each_table_line_is_read_as_a_task(tmp_path: Path) -> None:
    other = ["b", "B", "b", "0", "accuracy", "-", "-"]
    first, second = read_tasks(write(tmp_path / "mine.tsv", GOOD, other))
    assert first == Task(
        key="birds",
        name="Garden birds",
        folders=("wds_birds_test", "birds"),
        items=120,
        metric="worst_group",
        group_column=2,
        averages=("animals", "all"),
    )
    assert (second.group_column, second.averages) == (None, ())


def test_column_order_line_ends_and_byte_order_mark_do_not_matter(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.tsv", GOOD[::-1], columns=COLUMNS[::-1])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n\r\n")
    assert read_tasks(path) == read_tasks(write(tmp_path / "other.tsv", GOOD))


@pytest.mark.parametrize(
    ("lines", "column"),
    [
        ([changed("key", "garden birds")], "key"),
        ([changed("name", "Average")], "name"),
        ([changed("folders", " ")], "folders"),
        ([changed("items", "-1")], "items"),
        ([changed("metric", "acuracy")], "metric"),
        ([changed("group_column", "-")], "group_column"),
        ([changed("metric", "recall")], "group_column"),
        ([GOOD, changed("key", "other")], "name"),
        ([GOOD, changed("name", "other")], "key"),
        ([GOOD, GOOD[:-1]], "row 2"),
        ([GOOD[:1]], "row 1"),
        ([], "mine.tsv"),
    ],
)
def test_errors_of_a_task_table_name_row_and_column(lines: list[list[str]], column: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        read_tasks(write(tmp_path / "mine.tsv", *lines))
    assert error.value.field.endswith(column)


def average(table: list[Task], shares: dict[str, float]) -> dict[str, float]:
    rows = [Row(task=name, metric="m", value=value, num_items=1, main=True) for name, value in shares.items()]
    rows += [Row(task=name, metric="another", value=9.0, num_items=1) for name in shares]
    return {row.metric: row.value for row in average_rows(table, rows)}


def test_averages_are_over_the_tasks_that_name_them(tmp_path: Path) -> None:
    words = ["animals all", "all", "animals plants vtab", "-"]
    lines = [[f"k{n}", f"N{n}", "f", "0", "accuracy", "-", word] for n, word in enumerate(words)]
    table = read_tasks(write(tmp_path / "mine.tsv", *lines))
    found = average(table, {"N0": 0.1, "N1": 0.3, "N2": 0.5, "N3": 0.9})
    assert found == pytest.approx({"VTAB": 0.5, "animals": 0.3, "plants": 0.5, "2 tasks": 0.2})
    assert list(found) == ["VTAB", "animals", "plants", "2 tasks"]
    assert average(table, {"N0": 0.1}) == {"animals (1 of 2 tasks)": 0.1, "2 tasks (1 of 2 tasks)": 0.1}


def test_datacomps_table_has_only_the_published_averages() -> None:
    words = {word for task in read_tasks(TABLE) for word in task.averages}
    assert words == {*AVERAGES, "all"}


METRICS = {
    "birds": "cifar10",
    "recall": "vtab/pets",
    "f1": "wilds/iwildcam",
    "region": "wilds/fmow",
    "worst": "fairness/geode",
    "top5": "fairness/dollar_street",
    "pairs": "retrieval/flickr_1k_test_image_text_retrieval",
    "words": "misc/winogavil",
    "faces": "fairness/fairface",
}
"""Keys of a table with every metric, and the task whose folder each takes."""


def run(out: Path, source: str, data: Path, *words: str) -> dict[str, Any]:
    given = ["--checkpoint", source, "--data", str(data), "--out", str(out), "--num_resamples", "0", *words]
    assert main(["eval", "datacomp", *given]) == 0
    found: dict[str, Any] = json.loads((out / "results.json").read_text())
    return found


def test_sets_of_an_own_table_use_datacomps_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, source = tmp_path / "data", write_open_clip(tmp_path / "model")
    lines = []
    for key, known in METRICS.items():
        task = TASKS[known]
        write_task(data, task)
        column = "-" if task.group_column is None else str(task.group_column)
        lines.append([key, f"My {key}", task.folders[0], "0", task.metric, column, "mine all"])
    table = write(tmp_path / "garden.tsv", *lines)
    mine = run(tmp_path / "mine", source, data, "--table", str(table))
    theirs = run(tmp_path / "theirs", source, data)
    assert (mine["suite"], theirs["suite"]) == ("garden", "datacomp")
    named = {f"My {key}": TASKS[known].name for key, known in METRICS.items()}

    def values(found: dict[str, Any]) -> dict[tuple[str, str], float]:
        return {
            (named.get(figure["task"], figure["task"]), figure["metric"]): figure["value"][source]
            for figure in found["figures"]
            if figure["task"] != "Average"
        }

    assert values(mine) == values(theirs)
    assert not any("smaller than published" in note for notes in mine["notes"].values() for note in notes)
    mains = [figure["value"][source] for figure in mine["figures"] if figure["main"] and figure["task"] != "Average"]
    averages = {f["metric"]: f["value"][source] for f in mine["figures"] if f["task"] == "Average"}
    assert averages == pytest.approx(dict.fromkeys(("mine", "9 tasks"), sum(mains) / 9))
    assert len(set(mains)) > 4
    few = run(tmp_path / "few", source, data, "--table", str(table), "--tasks", "birds", "top5")
    assert {figure["task"] for figure in few["figures"]} == {"Average", "My birds", "My top5"}
    words = ["eval", "datacomp", "--checkpoint", source, "--data", str(data), "--out", str(tmp_path / "none")]
    assert main([*words, "--table", str(table), "--tasks", "cifar10"]) == 2
    assert "tasks" in capsys.readouterr().err


def test_group_numbers_may_be_any_integers(tmp_path: Path) -> None:
    """Years or ids: only which images are together counts."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (60,), generator=generator)
    best = torch.randint(3, (60, 3), generator=generator)
    groups = torch.randint(4, (60, 1), generator=generator)
    task = read_tasks(write(tmp_path / "mine.tsv", changed("group_column", "0")))[0]
    plain = task_rows(task, Answers(best, None), labels, groups)[-1]
    assert plain.main
    odd = torch.tensor([7, 2**40, 2016, 5])[groups]
    assert task_rows(task, Answers(best, None), labels, odd)[-1].value == plain.value


def test_the_region_other_is_left_out_by_its_number(tmp_path: Path) -> None:
    task = read_tasks(write(tmp_path / "mine.tsv", changed("metric", "worst_region")))[0]._replace(group_column=0)
    labels, best = torch.zeros(6, dtype=torch.int64), torch.tensor([[0], [1], [0], [1], [1], [1]])
    regions = torch.tensor([[0], [0], [3], [3], [5], [5]])
    rows = {row.metric: row.value for row in task_rows(task, Answers(best, None), labels, regions)}
    assert rows["worst-region accuracy"] == 0.0
    assert rows["worst-region accuracy, without Other"] == 0.5
