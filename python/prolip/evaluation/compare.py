"""Compare models: every figure with its bootstrap interval, and its difference from the first model's.

The same items are resampled for all models. So the difficulty of the items cancels in a difference. R resamples.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from prolip.evaluation.results import Row, SuiteResult
from prolip.metrics.statistics import STATISTICS, Interval, percentile_interval, resample

ABSENT = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One figure for all models. NaN where a model lacks the figure; low and high are NaN without resamples."""

    row: Row
    """The row of the first model that has it."""
    values: list[Interval]
    """One per model."""
    differences: list[Interval]
    """One per model except the first: its figure minus the first model's."""


def compare(results: Sequence[SuiteResult], *, num_resamples: int = 1000, seed: int = 0) -> list[Compared]:
    """Compare all rows of all models, in order of first appearance.

    Args:
        results: of one suite, one per model.
        num_resamples: R; 0 for no intervals.
        seed: seed of the resampling.
    """
    tables = [{row.key: row for row in result.rows} for result in results]
    assert [len(table) for table in tables] == [len(result.rows) for result in results], "a key names one row"
    shown = {key: row for table in reversed(tables) for key, row in table.items()}
    order = dict.fromkeys(key for table in tables for key in table)
    drawn = [_draw_all(table, num_resamples, seed) for table in tables]
    compared = []
    for key in order:
        rows = [table.get(key) for table in tables]
        draws = [draw.get(key) for draw in drawn]
        values = [_interval(row, draw) for row, draw in zip(rows, draws, strict=True)]
        differences = [_difference(rows[0], row, draws[0], draw) for row, draw in zip(rows[1:], draws[1:], strict=True)]
        compared.append(Compared(row=shown[key], values=values, differences=differences))
    return compared


def _draw_all(table: Mapping[str, Row], num_resamples: int, seed: int) -> dict[str, Tensor]:
    """The figure on every resample, f64 [R], for rows that have items, and for means and differences of such rows."""

    @cache
    def draw(key: str) -> Tensor | None:
        row = table[key]
        if row.items:
            # Tasks are resampled independently, so that the interval of an average over tasks is right. Rows of one
            # task with equally many items have the same resamples, so that the interval of their difference is right.
            task_seed = (seed + zlib.crc32(row.task.encode())) % 2**64
            return resample(STATISTICS[row.statistic], *row.columns(), num_resamples=num_resamples, seed=task_seed)
        names = row.mean_of or row.difference_of
        parts = [drawn for name in names if (drawn := draw(name)) is not None]
        if not names or len(parts) < len(names):
            return None
        return torch.stack(parts).mean(dim=0) if row.mean_of else parts[1] - parts[0]

    return {key: drawn for key in table if num_resamples > 0 and (drawn := draw(key)) is not None}


def _interval(row: Row | None, draws: Tensor | None) -> Interval:
    if row is None:
        return ABSENT
    return Interval(row.value, math.nan, math.nan) if draws is None else percentile_interval(row.value, draws)


def _difference(first: Row | None, other: Row | None, first_draws: Tensor | None, draws: Tensor | None) -> Interval:
    """The other figure minus the first; with an interval if both come from the same items."""
    if first is None or other is None:
        return ABSENT
    value = other.value - first.value
    same = all(getattr(first, name) == getattr(other, name) for name in ("num_items", "mean_of", "difference_of"))
    if not same or first_draws is None or draws is None:
        return Interval(value, math.nan, math.nan)
    return percentile_interval(value, draws - first_draws)
