"""A custom task table for `prolip eval datacomp`: read, run, and its errors."""

import json

import pytest
import torch
from tests.support.datacomp_sets import TASKS, write_open_clip, write_task
from tests.support.suite_results import values

from prolip.cli import main
from prolip.errors import UserError
from prolip.evaluation.classification import Answers
from prolip.evaluation.datacomp import Task, average_rows, read_tasks, task_rows
from prolip.evaluation.results import Row, RowId

COLUMNS = ["key", "name", "folders", "items", "metric", "group_column", "averages"]
GOOD = ["birds", "Garden birds", "wds_birds_test birds", "120", "worst_group", "2", "animals all"]


def write(path, *lines, columns=COLUMNS):
    path.write_text("\n".join("\t".join(line) for line in [columns, *lines]) + "\n", encoding="utf-8")
    return path


def changed(column, value):
    return [value if name == column else field for name, field in zip(COLUMNS, GOOD, strict=True)]


def test_each_table_line_is_read_as_a_task(tmp_path):
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


@pytest.mark.parametrize(
    ("lines", "column"),
    [
        ([changed("name", "Average")], "name"),
        ([changed("folders", " ")], "folders"),
        ([changed("metric", "acuracy")], "metric"),
        ([changed("group_column", "-")], "group_column"),
        ([GOOD, changed("key", "other")], "name"),
        ([GOOD, GOOD[:-1]], "row 2"),
        ([], "mine.tsv"),
    ],
)
def test_errors_of_a_task_table_name_row_and_column(lines, column, tmp_path):
    with pytest.raises(UserError) as error:
        read_tasks(write(tmp_path / "mine.tsv", *lines))
    assert error.value.field.endswith(column)


def average(table, shares):
    rows = [Row(id=RowId("m", data=name), value=value, num_items=1, main=True) for name, value in shares.items()]
    rows += [Row(id=RowId("another", data=name), value=9.0, num_items=1) for name in shares]
    return {(row.id.of, row.num_items, row.id.at): row.value for row in average_rows(table, rows)}


def test_averages_are_over_the_tasks_that_name_them(tmp_path):
    words = ["animals all", "all", "animals plants vtab", "-"]
    lines = [[f"k{n}", f"N{n}", "f", "0", "accuracy", "-", word] for n, word in enumerate(words)]
    table = read_tasks(write(tmp_path / "mine.tsv", *lines))
    found = average(table, {"N0": 0.1, "N1": 0.3, "N2": 0.5, "N3": 0.9})
    expected = {("VTAB", 1, 1): 0.5, ("animals", 2, 2): 0.3, ("plants", 1, 1): 0.5, ("all", 2, 2): 0.2}
    assert found == pytest.approx(expected)
    assert list(found) == list(expected)
    assert average(table, {"N0": 0.1}) == {("animals", 1, 2): 0.1, ("all", 1, 2): 0.1}


def test_a_table_of_ones_own_uses_datacomps_metrics(tmp_path, capsys):
    data, source, chosen = tmp_path / "data", write_open_clip(tmp_path / "model"), {}
    for key in ("vtab/pets", "wilds/iwildcam", "fairness/geode", "misc/winogavil", "fairness/fairface"):
        chosen[f"My {len(chosen)}"] = task = TASKS[key]
        write_task(data, task)
    lines = [
        [f"k{place}", name, task.folders[0], "0", task.metric, "-" if task.group_column is None else "0", "mine all"]
        for place, (name, task) in enumerate(chosen.items())
    ]
    table = write(tmp_path / "garden.tsv", *lines)
    words = ["eval", "datacomp", "--checkpoint", source, "--data", str(data), "--num_resamples", "0"]
    assert main([*words, *f"--table {table} --out {tmp_path}/mine".split()]) == 0
    assert main([*words, "--out", str(tmp_path / "theirs")]) == 0
    mine, theirs = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("mine", "theirs"))
    assert (mine["suite"], theirs["suite"]) == ("garden", "datacomp")
    for name, task in chosen.items():
        assert values(mine, data=name) == values(theirs, data=task.name)
    mains = [row["value"][source] for row in mine["figures"] if row["main"] and row["id"]["data"] in chosen]
    averages = {id.of: value for id, value in values(mine, data="Average").items()}
    assert averages == pytest.approx(dict.fromkeys(("mine", "all"), sum(mains) / 5))
    assert main([*words, *f"--table {table} --tasks cifar10 --out {tmp_path}/none".split()]) == 2
    assert "tasks" in capsys.readouterr().err


def test_groups_are_told_apart_by_their_numbers(tmp_path):
    """They may be years or ids. FMoW's region 5 is Other."""
    task = read_tasks(write(tmp_path / "mine.tsv", changed("metric", "worst_region")))[0]._replace(group_column=0)
    labels, best = torch.zeros(6, dtype=torch.int64), torch.tensor([[0], [1], [0], [1], [1], [1]])
    for regions, alone in (([0, 0, 2**40, 2**40, 5, 5], [0.5]), ([0, 0, 2016, 2016, 7, 7], []), ([5] * 6, [])):
        rows = {
            row.id: row.value for row in task_rows(task, Answers(best, None), labels, torch.tensor(regions)[:, None])
        }
        assert rows.pop(RowId("worst_region_accuracy")) == (0.0 if len(set(regions)) > 1 else pytest.approx(1 / 3))
        assert [value for id, value in rows.items() if id.by == "known_regions"] == alone
