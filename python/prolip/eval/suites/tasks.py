"""The 38 tasks of DataComp's evaluation and its two fairness extras; `datacomp.tsv` has one line a task."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Literal, NamedTuple, get_args

TABLE = Path(__file__).with_name("datacomp.tsv")

Metric = Literal[
    "accuracy", "recall", "f1", "worst_region", "worst_group", "worst_group_top5", "retrieval", "associations", "faces"
]
"""What a task is judged by. `recall` is averaged over classes; `associations` are WinoGAViL's, `faces` the extras'."""
Average = Literal["imagenet", "shifts", "vtab", "retrieval", "all"]
AVERAGES: dict[Average, str] = {
    "imagenet": "ImageNet",
    "shifts": "ImageNet distribution shifts",
    "vtab": "VTAB",
    "retrieval": "retrieval",
    "all": "38 tasks",
}
"""The averages of the published table, in its order."""


class Task(NamedTuple):
    """A line of the table."""

    key: str
    """DataComp's name of the task."""
    name: str
    """As the published tables write it."""
    folders: tuple[str, ...]
    """Names that its folder may have, the usual one first."""
    items: int
    """Pictures, or WinoGAViL's associations, of the published set."""
    metric: Metric
    group_column: int | None
    """Column of the samples' metadata that holds the group, where the metric is of the worst one."""
    averages: tuple[Average, ...]
    """Averages that it is part of."""


def read_tasks() -> list[Task]:
    """All tasks, in the order of the published list."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return [_task(line) for line in csv.DictReader(file, delimiter="\t")]


def _task(line: dict[str, str]) -> Task:
    (metric,) = (known for known in get_args(Metric) if known == line["metric"])
    return Task(
        key=line["key"],
        name=line["name"],
        folders=tuple(line["folders"].split()),
        items=int(line["items"]),
        metric=metric,
        group_column=None if line["group_column"] == "-" else int(line["group_column"]),
        averages=tuple(average for average in AVERAGES if average in line["averages"].split()),
    )
