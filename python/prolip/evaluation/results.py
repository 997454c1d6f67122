"""Results of a suite: rows of figures with the items behind them, charts and notes; finished tasks; models compared.

Shares are in [0, 1]. N items, R resamples.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from prolip.metrics.statistics import STATISTICS, Interval, percentile_interval, resample, share_interval, value_of
from prolip.store.atomic_writes import write_atomic
from prolip.store.typed_tables import decode, plain

_SHOWN = 100
"""Maximum characters of a task's name in its file's."""


@dataclass(frozen=True)
class RowId:
    """What a figure measures; `prolip.report.words` says it in words."""

    measure: str
    _: KW_ONLY
    group: str = ""
    """Heading of the section; by default the data set."""
    data: str = ""
    """Data set or task; `TaskResult.named` fills it in."""
    by: str = ""
    """A score, method or setting."""
    way: str = ""
    """Of a search: `text_to_image`, `image_to_text` or `image_to_image`."""
    of: str = ""
    """A class, group or model."""
    other: str = ""
    """A second class, group or set."""
    at: int | float | None = None
    """A rank, level, limit or share."""
    minus: str | None = None
    """Of a difference: `by` of the row that is subtracted, which has no `of`."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """With its items, so that models can be compared."""

    id: RowId
    value: float
    num_items: int
    main: bool = False
    items: list[float] = field(default_factory=list)
    """One number each, whose `statistic` is `value`. Empty if the figure cannot be resampled."""
    labels: list[int] = field(default_factory=list)
    """One whole number per item, if `statistic` needs it: its class, its group, or whether the answer was right."""
    statistic: str = "mean"
    """A name in `prolip.metrics.statistics.STATISTICS`."""
    mean_of: list[RowId] = field(default_factory=list)
    """Of an average: its rows."""
    baselines: dict[str, float] = field(default_factory=dict)
    """To compare with, by name, such as that of an untrained model."""
    verdict: str = ""
    """Of a share with the baseline `promised`: "holds", "below" or "too few"; see `judged`."""

    def columns(self) -> list[Tensor]:
        """What `statistic` takes: items, f64 [N], and labels, i64 [N], if it needs them."""
        items = torch.tensor(self.items, dtype=torch.float64)
        return [items, torch.tensor(self.labels)] if self.labels else [items]


def row_of_items(
    id: RowId, items: Tensor, labels: Tensor | None = None, *, statistic: str = "mean", main: bool = False
) -> Row:
    """A statistic of items [N] and labels i64 [N]."""
    columns = [items.double()] if labels is None else [items.double(), labels.long()]
    return Row(
        id=id,
        value=value_of(STATISTICS[statistic], *columns),
        num_items=len(items),
        main=main,
        items=columns[0].tolist(),
        labels=[] if labels is None else columns[1].tolist(),
        statistic=statistic,
    )


def difference(first: Row, other: Row, *, main: bool = False) -> Row:
    """The second figure minus the first."""
    id = replace(other.id, minus=first.id.by)
    return Row(id=id, value=other.value - first.value, num_items=other.num_items, main=main)


def judged(row: Row, promised: float, num_known: float) -> Row:
    """The row of a share with what was promised, and the verdict.

    "below": by more than chance explains. "too few" items: the misses may be more than twice those promised. Else
    "holds".

    Args:
        num_known: items of the calibration, if the promise holds on average over calibrations, which differ by chance
            as well; infinity if it holds for this calibration.
    """
    _, low, high = share_interval(row.value, row.num_items / (1 + row.num_items / num_known))
    verdict = "below" if high < promised else "holds" if low >= 2 * promised - 1 else "too few"
    return replace(row, baselines={"promised": promised}, verdict=verdict)


def mean_row(id: RowId, rows: Sequence[Row], num_items: int) -> Row:
    """A main figure."""
    value = sum(row.value for row in rows) / len(rows)
    return Row(id=id, value=value, num_items=num_items, main=True, mean_of=[row.id for row in rows])


@dataclass(frozen=True, kw_only=True)
class Chart:
    """On the results page."""

    group: str = ""
    """Heading of the section; `TaskResult.named` fills in the data set."""
    title: str = ""
    text: str
    svg: str
    """Of `prolip.report.charts`, or other HTML for the page; "" if the text is that of the section."""


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """Of one task."""

    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    """What was left out and why, and other remarks."""
    charts: list[Chart] = field(default_factory=list)

    def named(self, data: str) -> TaskResult:
        """The results of the data set or task of this name, but for what names another."""

        def named(id: RowId) -> RowId:
            return id if id.data else replace(id, data=data)

        rows = [replace(row, id=named(row.id), mean_of=list(map(named, row.mean_of))) for row in self.rows]
        charts = [replace(chart, group=chart.group or data) for chart in self.charts]
        return TaskResult(rows=rows, notes=[f"{data}: {note}" for note in self.notes], charts=charts)


@dataclass(frozen=True, kw_only=True)
class SuiteResult:
    """Of one model."""

    suite: str
    model: str
    fingerprint: str
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)


class TaskCache:
    """Finished tasks on disk: none runs twice."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get_or_run(self, name: str, key: object, compute: Callable[[], TaskResult]) -> TaskResult:
        """Read the result of a task that finished with this key in this version of prolip, or run it.

        The key is all that the result depends on: options, fingerprints, tensors.
        """
        text = json.dumps([version("prolip"), name, plain(key)], default=_digest)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        path = self.folder / f"{re.sub('[^A-Za-z0-9.-]+', '_', name)[:_SHOWN]}-{digest}.json"
        if path.is_file():
            try:
                return decode(TaskResult, json.loads(path.read_text(encoding="utf-8")))
            except ValueError:
                pass  # damaged, or written by an older commit of this version
        result = compute()
        write_atomic(path, json.dumps(plain(result)))
        return result


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.cpu().contiguous().numpy().tobytes()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One figure for all models. NaN where a model lacks it; low and high are NaN without resamples."""

    row: Row
    """Of the first model that has it; a main figure if it is one of any model."""
    values: list[Interval]
    verdicts: list[str]
    differences: list[Interval]
    """From the first model's figure, one per other model."""


def compare(results: Sequence[SuiteResult], *, num_resamples: int = 1000, seed: int = 0) -> list[Compared]:
    """Compare all rows of all models of a suite, in order of first appearance; no intervals for 0 resamples.

    The same items are resampled for all models, so their difficulty cancels in a difference.
    """
    tables = [{row.id: row for row in result.rows} for result in results]
    assert [len(table) for table in tables] == [len(result.rows) for result in results], "an id names one row"
    drawn = [_draw_all(table, num_resamples, seed) for table in tables]
    compared = []
    for id in dict.fromkeys(id for table in tables for id in table):
        rows, draws = [table.get(id) for table in tables], [draw.get(id) for draw in drawn]
        values = [_interval_of(row, draw) for row, draw in zip(rows, draws, strict=True)]
        # Only figures of the same items are compared resample by resample.
        items = [row and (row.num_items, row.mean_of) for row in rows]
        differences = [
            _interval(
                value.value - values[0].value,
                draw - draws[0] if draw is not None and draws[0] is not None and of == items[0] else None,
            )
            for value, draw, of in zip(values[1:], draws[1:], items[1:], strict=True)
        ]
        row = next(row for row in rows if row is not None)
        row = replace(row, main=any(row.main for row in rows if row))
        compared.append(
            Compared(
                row=row, values=values, verdicts=[row.verdict if row else "" for row in rows], differences=differences
            )
        )
    return compared


def _draw_all(table: Mapping[RowId, Row], num_resamples: int, seed: int) -> dict[RowId, Tensor]:
    """Each resample, f64 [R], of rows that have items, and of means and differences of such rows."""

    @cache
    def draw(id: RowId) -> Tensor | None:
        row = table.get(id)
        if row is None:
            return None
        if row.items:
            # Data sets are resampled independently, rows of one together.
            task_seed = (seed + zlib.crc32(id.data.encode())) % 2**64
            return resample(STATISTICS[row.statistic], *row.columns(), num_resamples=num_resamples, seed=task_seed)
        parts = row.mean_of
        if id.minus is not None:
            parts = [replace(id, by=id.minus, of="", minus=None), replace(id, minus=None)]
        drawn = [found for part in parts if (found := draw(part)) is not None]
        if not parts or len(drawn) < len(parts):
            return None
        return drawn[1] - drawn[0] if id.minus is not None else torch.stack(drawn).mean(dim=0)

    return {id: drawn for id in table if num_resamples > 0 and (drawn := draw(id)) is not None}


def _interval_of(row: Row | None, draws: Tensor | None) -> Interval:
    if row and row.items and draws is not None and row.statistic == "mean" and {0.0, 1.0}.issuperset(row.items):
        return share_interval(row.value, row.num_items)
    return _interval(row.value if row else math.nan, draws)


def _interval(value: float, draws: Tensor | None) -> Interval:
    return Interval(value, math.nan, math.nan) if draws is None else percentile_interval(value, draws)
