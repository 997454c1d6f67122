"""Results of a suite: rows of figures with the items behind them, charts and notes; a cache of finished tasks.

Shares are in [0, 1].
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from prolip.errors import UserError
from prolip.evaluation.typed_json import from_json, to_json
from prolip.files import write_atomic
from prolip.metrics.statistics import STATISTICS, value_of

Unit = Literal["share", "number"]
_SHOWN = 100
"""Characters of a task's name in the name of its file. A path can be longer than a file's name may be."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure of one task, with the items that it was computed from, so that models can be compared."""

    task: str
    """Name of the task, such as that of a data set."""
    metric: str
    """Name of the metric, such as "accuracy"."""
    value: float
    num_items: int
    """Number of items."""
    main: bool = False
    """Whether this is the task's main figure."""
    unit: Unit = "share"
    """Shares are shown in percent."""
    items: list[float] = field(default_factory=list)
    """One number per item, in the order of the data; `value` is their `statistic`. Empty if the figure cannot be
    resampled."""
    groups: list[int] = field(default_factory=list)
    """One whole number per item, if `statistic` needs it: its class, its group, or whether the answer was right."""
    statistic: str = "mean"
    """A name in `prolip.metrics.statistics.STATISTICS`."""
    mean_of: list[str] = field(default_factory=list)
    """For an average over tasks: the `key` of each row in it."""
    difference_of: list[str] = field(default_factory=list)
    """For a difference: the `key` of two rows of the same items; the second minus the first."""
    baselines: dict[str, float] = field(default_factory=dict)
    """Values to compare with, by name, such as that of an untrained model."""

    @property
    def key(self) -> str:
        """The row's name within its suite."""
        return f"{self.task}: {self.metric}"

    def columns(self) -> list[Tensor]:
        """What `statistic` takes: the items, f64 [N], and the groups, i64 [N], if it needs them."""
        items = torch.tensor(self.items, dtype=torch.float64)
        return [items, torch.tensor(self.groups)] if self.groups else [items]


def row_of_items(
    task: str,
    metric: str,
    items: Tensor,
    groups: Tensor | None = None,
    *,
    statistic: str = "mean",
    main: bool = False,
    unit: Unit = "share",
) -> Row:
    """The row of a statistic of items [N] and groups i64 [N].

    Raises:
        UserError: there is no item.
    """
    if len(items) == 0:
        raise UserError(f"{task}: {metric} needs at least one item")
    columns = [items.double()] if groups is None else [items.double(), groups]
    return Row(
        task=task,
        metric=metric,
        value=value_of(STATISTICS[statistic], *columns),
        num_items=len(items),
        main=main,
        unit=unit,
        items=[float(item) for item in items.tolist()],
        groups=[] if groups is None else groups.tolist(),
        statistic=statistic,
    )


def mean_row(task: str, metric: str, rows: Sequence[Row], num_items: int) -> Row:
    """The mean of other rows, a main figure."""
    value = sum(row.value for row in rows) / len(rows)
    keys = [row.key for row in rows]
    return Row(task=task, metric=metric, value=value, num_items=num_items, main=True, mean_of=keys)


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart on the results page."""

    title: str
    """`HEADING: TITLE`; charts with the same heading share a section."""
    text: str
    """A description of the chart."""
    svg: str
    """An svg of `prolip.report.charts`, or other HTML for the page; "" if the text is that of the section."""


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """Results of one task."""

    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    """What was left out and why, and other remarks."""
    charts: list[Chart] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class SuiteResult:
    """Results of one model on a suite."""

    suite: str
    model: str
    """The model's name."""
    fingerprint: str
    """The model's fingerprint."""
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)


class TaskCache:
    """Results of finished tasks on disk, so that no task runs twice."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get_or_run(self, name: str, settings: Mapping[str, object], compute: Callable[[], TaskResult]) -> TaskResult:
        """Read the result of a finished task, or run it. Results of another version of prolip are not read.

        Measures change between versions. The version needs no one to remember it, as a number of its own would.

        Args:
            name: the task's name; the file's name begins with it.
            settings: everything that the result depends on (model, data, options), as JSON values.
            compute: runs the task. If it raises, nothing is stored.
        """
        whole = {"prolip": version("prolip"), "task": name, "settings": settings}
        digest = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16]
        path = self.folder / f"{re.sub('[^A-Za-z0-9.-]+', '_', name)[:_SHOWN]}-{digest}.json"
        if path.is_file():
            try:
                return from_json(TaskResult, path.read_text(encoding="utf-8"))
            except ValueError:
                pass  # damaged, or written by an older commit of this version
        result = compute()
        write_atomic(path, to_json(result))
        return result
