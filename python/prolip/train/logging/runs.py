"""`prolip runs`: compare several runs in a table and on a page of curves."""

from __future__ import annotations

import json
import logging
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prolip.errors import UserError
from prolip.files import write_atomic
from prolip.report.charts import Line, line_chart
from prolip.report.page import Figure, Section, build_page
from prolip.report.text_table import align
from prolip.train.best import LOSSES, lower_is_better
from prolip.train.config.options import RunsOptions
from prolip.train.logging import format_seconds
from prolip.train.logging.log import GROUPS, read_rows

log = logging.getLogger(__name__)

_MAX_CURVES = 8


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The log of a run."""

    name: str
    total_steps: int | None
    """Steps of the whole run; None without a configuration."""
    rows: list[dict[str, float]]
    """Rows of metrics.jsonl."""

    def column(self, name: str) -> list[tuple[float, float]]:
        """Return the values of a metric as (samples seen, value)."""
        return [(row["samples"], row[name]) for row in self.rows if name in row and "samples" in row]

    def latest(self, name: str) -> float:
        """Return the last value of a metric; NaN if there is none."""
        return next((row[name] for row in reversed(self.rows) if name in row), math.nan)


def run_runs(options: RunsOptions) -> list[str]:
    """Return the lines of the table, and write the page of curves if one is requested.

    Raises:
        UserError: a folder has no run, the page would have more runs than colours, or no run has a requested metric.
    """
    runs = find_runs(options.folders)
    known = list(dict.fromkeys(name for run in runs for row in run.rows for name in row))
    unknown = [name for name in options.metrics if name not in known]
    if unknown:
        raise UserError(f"metrics: no run has {', '.join(unknown)}; there are {', '.join(known)}")
    summaries = [summarise(run, options.metrics or _default_metrics(known)) for run in runs]
    lines = _table_lines(summaries, "json" if options.json else options.format)
    if options.plot is not None:
        if len(runs) > _MAX_CURVES:
            raise UserError(f"plot: {len(runs)} runs are too many, a page draws at most {_MAX_CURVES}")
        sections = [Section("Runs", table=_cells(summaries)), *curve_sections(runs, options.metrics or known)]
        write_atomic(options.plot, build_page("Runs side by side", sections))
    return lines


def find_runs(folders: Sequence[Path]) -> list[RunRecord]:
    """Find the runs in folders or in their subfolders, each once.

    Raises:
        UserError: a folder is not a run and has none.
    """
    found: dict[Path, None] = {}
    for folder in folders:
        logs = [*folder.glob("metrics.jsonl")] or sorted(folder.glob("*/metrics.jsonl"))
        if not logs:
            in_it = "there is no metrics.jsonl in it or in its subfolders"
            why = in_it if folder.is_dir() else "there is no such folder"
            raise UserError(f"{folder} has no run: {why}; name the folders of runs, such as `prolip runs runs/demo`")
        found |= dict.fromkeys(path.parent for path in logs)
    names = [path.resolve().name for path in found]
    ambiguous = {name for name in names if names.count(name) > 1}
    return [_read(path, str(path) if name in ambiguous else name) for path, name in zip(found, names, strict=True)]


def _read(folder: Path, name: str) -> RunRecord:
    config = folder / "config.toml"
    total = None
    if config.is_file():
        try:
            settings: dict[str, Any] = tomllib.loads(config.read_text(encoding="utf-8"))
            total = settings["samples_seen"] // settings["batch_size"]
        except (ValueError, KeyError) as error:
            log.warning("%s does not hold the settings of a run: %s", config, error)
    return RunRecord(name=name, total_steps=total, rows=read_metrics(folder / "metrics.jsonl"))


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Read rows of numbers; see `read_rows`."""
    return [{k: float(v) for k, v in row.items() if isinstance(v, int | float)} for row in read_rows(path)]


def summarise(run: RunRecord, metrics: Sequence[str]) -> dict[str, Any]:
    """Return a row of the table, as plain values by column; None for missing values."""
    samples, seconds = run.latest("samples"), run.latest("time_s")
    line: dict[str, Any] = {
        "run": run.name,
        "steps": run.latest("step"),
        "of": run.total_steps,
        "samples": samples,
        "samples/s": samples / seconds if seconds > 0 else math.nan,
        "time_s": seconds,
    }
    for name in metrics:
        values = [value for _, value in run.column(name)]
        line[name] = run.latest(name)
        line[f"{name} (best)"] = (min if lower_is_better(name) else max)(values, default=math.nan)
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in line.items()}


def _default_metrics(known: Sequence[str]) -> list[str]:
    first: dict[str, str] = {}
    for name in known:
        if name.startswith("val/"):
            first.setdefault(name.rpartition("/")[0], name)
    return ["loss", *first.values()]


def curve_sections(runs: Sequence[RunRecord], names: Sequence[str]) -> list[Section]:
    """Draw the metrics with these names over the samples seen, each in one chart for all runs."""
    sections = (
        ("Evaluation", [name for name in names if name.startswith("val/")]),
        ("Loss", [name for name in LOSSES if name in names]),
        ("Model and optimiser", [name for name in (*GROUPS["model"], *GROUPS["optim"]) if name in names]),
        ("Speed", [name for name in GROUPS["speed"] if name in names]),
        ("Loader", [name for name in names if name.startswith(("loader/", "bad/"))]),
    )
    return [
        Section(heading, figures=[Figure(name, _draw(runs, name)) for name in metrics])
        for heading, metrics in sections
        if metrics
    ]


def _draw(runs: Sequence[RunRecord], name: str) -> str:
    lines = [Line(run.name, *([point[axis] for point in run.column(name)] for axis in (0, 1))) for run in runs]
    description = f"{name} of {', '.join(run.name for run in runs)} by samples seen"
    few = all(len(line.x) <= 40 for line in lines)
    return line_chart(name, description, lines, x_label="samples seen", marks=few)


# ---- The table ------------------------------------------------------------------------------------------------------


def _table_lines(summaries: Sequence[Mapping[str, Any]], style: str) -> list[str]:
    if style == "json":
        return [json.dumps(list(summaries), indent=2, ensure_ascii=False)]
    cells = _cells(summaries)
    if style == "markdown":
        rule = ["---", *["---:"] * (len(cells[0]) - 1)]
        bar = "\\|"
        return [f"| {' | '.join(cell.replace('|', bar) for cell in row)} |" for row in (cells[0], rule, *cells[1:])]
    return list(align(cells))


def _cells(summaries: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return the header and one row per run, formatted for people."""
    special = {"run", "steps", "of", "samples", "samples/s", "time_s"}
    metrics = [name for name in summaries[0] if name not in special]
    rows = [["run", "steps", "samples", "samples/s", "time", *metrics]]
    for line in summaries:
        steps = _number(line["steps"], "{:,.0f}")
        rows.append(
            [
                line["run"],
                steps if line["of"] is None else f"{steps} of {line['of']:,}",
                _number(line["samples"], "{:,.0f}"),
                _number(line["samples/s"], "{:,.0f}"),
                "–" if line["time_s"] is None else format_seconds(line["time_s"]),
                *(_number(line[name], "{:.4g}") for name in metrics),
            ]
        )
    return rows


def _number(value: float | None, style: str) -> str:
    return "–" if value is None else style.format(value)
