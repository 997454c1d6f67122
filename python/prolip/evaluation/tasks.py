"""Read tables of tasks, one per line: DataComp's 38 tasks and two fairness extras, or the user's own."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
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
        UserError: not a valid table; the message names the file, the row, the column and the rule.
        OSError: there is no such file.
    """
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    tasks: list[Task] = []
    for number, row in enumerate(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE), start=1):
        place = f"{path} row {number}"
        if set(row) != set(Task._fields) or None in row.values():
            raise UserError(f"{place}: it must have the columns {', '.join(Task._fields)}, separated by tabs")
        tasks.append(_task(place, {column: value.strip() for column, value in row.items()}, tasks))
    if not tasks:
        raise UserError(f"{path}: it must have a line of columns, and a task in each other line")
    return tasks


def _task(place: str, row: Mapping[str, str], others: Sequence[Task]) -> Task:
    metric = next((known for known in get_args(Metric) if known == row["metric"]), None)
    grouped = metric in BY_GROUP
    group = row["group_column"]
    rules = {
        "key": (len(row["key"].split()) == 1, "one word"),
        "name": (row["name"] not in {"", "Average"}, "a name, and not Average"),
        "folders": (row["folders"] != "", "names of a folder, separated by spaces"),
        "items": (row["items"].isdecimal(), "a whole number, 0 if unknown"),
        "metric": (metric is not None, f"one of {', '.join(get_args(Metric))}"),
        "group_column": (
            group.isdecimal() if grouped else group == _NONE,
            f"the index, from 0, of the group in a sample's .npy; {_NONE} for metrics without groups",
        ),
        "averages": (row["averages"] != "", f"words separated by spaces, or {_NONE}"),
    }
    for column, (holds, rule) in rules.items():
        unique = column not in {"key", "name"} or row[column] not in {getattr(other, column) for other in others}
        if not holds or not unique:
            raise UserError(f"{place}, {column}: it must be {rule if unique else 'unique'} (got {row[column]!r})")
    assert metric is not None, "checked above"
    return Task(
        key=row["key"],
        name=row["name"],
        folders=tuple(row["folders"].split()),
        items=int(row["items"]),
        metric=metric,
        group_column=int(group) if grouped else None,
        averages=tuple(word for word in row["averages"].split() if word != _NONE),
    )
