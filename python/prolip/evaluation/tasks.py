"""Read tables of tasks, one per line: DataComp's 38 tasks and two fairness extras, or the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from prolip.errors import UserError
from prolip.files import read_text

TABLE = Path(__file__).with_name("datacomp.tsv")
"""DataComp's tasks."""

Metric = Literal[
    "accuracy", "recall", "f1", "worst_region", "worst_group", "worst_group_top5", "retrieval", "associations", "faces"
]
"""A task's main metric. `recall`: mean over classes. `associations`: WinoGAViL. `faces`: the fairness extras."""
BY_GROUP: tuple[Metric, ...] = ("worst_region", "worst_group", "worst_group_top5")
"""Metrics of the worst group. They need a column of the samples' metadata."""
ALL = "all"
"""The average over all tasks. It comes last, and its title gives the number of tasks."""
AVERAGES = {
    "imagenet": "ImageNet",
    "shifts": "ImageNet distribution shifts",
    "vtab": "VTAB",
    "retrieval": "retrieval",
}
"""Titles of the other published averages, in the published order. Any other word is its own title."""
_NONE = "-"


class Task(NamedTuple):
    """A line of a table; the fields are the columns."""

    key: str
    """One word, the task's name on the command line."""
    name: str
    """The task's name in results."""
    folders: tuple[str, ...]
    """Possible names of its folder, the usual one first."""
    items: int
    """Images (or associations of WinoGAViL) in the whole set; 0 if unknown."""
    metric: Metric
    group_column: int | None
    """Column of the samples' metadata that holds the group, for metrics of the worst group; else None."""
    averages: tuple[str, ...]
    """Averages that include the task."""


def read_tasks(path: Path = TABLE) -> list[Task]:
    """The tasks of a table, in order.

    A table is a text file with columns separated by tabs; the first line names them as in `Task`. Folders and averages
    are separated by spaces; `-` means no group column or no average.

    Raises:
        UserError: not a valid table; the message names the file, the line, the column and the rule.
        OSError: there is no such file.
    """
    lines = [(number, line) for number, line in enumerate(read_text(path).split("\n"), start=1) if line.strip()]
    columns = [name.strip() for name in lines[0][1].split("\t")] if lines else []
    if sorted(columns) != sorted(Task._fields):
        found = ", ".join(columns) or "none"
        raise UserError(
            f"{path} line 1: its columns are {found}: they must be {', '.join(Task._fields)}, separated by tabs"
        )
    tasks = [_task(f"{path} line {number}", columns, line.split("\t")) for number, line in lines[1:]]
    if not tasks:
        raise UserError(f"{path} has no task: each line after the first must be one")
    for column in ("key", "name"):
        values = [getattr(task, column) for task in tasks]
        for (number, _), value in zip(lines[1:], values, strict=True):
            if values.count(value) > 1:
                raise UserError(f"{path} line {number}, column {column} is {value!r}: it must be unique")
    return tasks


def _task(place: str, columns: Sequence[str], fields: Sequence[str]) -> Task:
    if len(fields) != len(columns):
        raise UserError(f"{place} has {len(fields)} columns: it must have {len(columns)}, separated by tabs")
    line = {column: field.strip() for column, field in zip(columns, fields, strict=True)}
    metric = next((known for known in get_args(Metric) if known == line["metric"]), None)
    grouped = metric in BY_GROUP
    group = line["group_column"]
    rules = {
        "key": (len(line["key"].split()) == 1, "one word"),
        "name": (line["name"] not in {"", "Average"}, "a name, and not Average"),
        "folders": (line["folders"] != "", "the name of a folder, or of several separated by spaces"),
        "items": (line["items"].isdecimal(), "a whole number, 0 if unknown"),
        "metric": (metric is not None, f"one of {', '.join(get_args(Metric))}"),
        "group_column": (
            group.isdecimal() if grouped else group == _NONE,
            "the index, from 0, of the group in a sample's .npy" if grouped else f"{_NONE}: {metric} has no groups",
        ),
        "averages": (line["averages"] != "", f"words separated by spaces, or {_NONE}"),
    }
    for column, (holds, rule) in rules.items():
        if not holds:
            raise UserError(f"{place}, column {column} is {line[column]!r}: it must be {rule}")
    assert metric is not None, "checked above"
    return Task(
        key=line["key"],
        name=line["name"],
        folders=tuple(line["folders"].split()),
        items=int(line["items"]),
        metric=metric,
        group_column=int(group) if grouped else None,
        averages=tuple(word for word in line["averages"].split() if word != _NONE),
    )
