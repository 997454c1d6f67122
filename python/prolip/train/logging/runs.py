"""`prolip runs`: compare several runs in a table and on a page of curves."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from prolip.data import NativeConfig
from prolip.errors import UserError, check
from prolip.report.charts import Line, line_chart
from prolip.report.page import Cell, Figure, Section, build_page
from prolip.report.text_table import align
from prolip.store.atomic_writes import write_atomic
from prolip.store.typed_tables import decode
from prolip.train.best_metric import LOSSES, lower_is_better
from prolip.train.config.options import RunsOptions
from prolip.train.logging.log import GROUPS, read_rows

_MAX_CURVES = 8


class RunRecord(NamedTuple):
    """The log of a run."""

    name: str
    total_steps: int | None
    """Steps of the whole run; None without a configuration."""
    rows: list[dict[str, float]]
    """Rows of metrics.jsonl."""

    def column(self, name: str) -> list[tuple[float, float]]:
        """Values of a metric as (samples seen, value)."""
        return [(row["samples"], row[name]) for row in self.rows if name in row and "samples" in row]

    def latest(self, name: str) -> float | None:
        """Last value of a metric; None if there is none."""
        return next((row[name] for row in reversed(self.rows) if name in row), None)


def run_runs(options: RunsOptions) -> list[str]:
    """Lines of the table; also writes the page of curves if one is requested."""
    runs = find_runs(options.folders)
    known = list(dict.fromkeys(name for run in runs for row in run.rows for name in row))
    unknown = [name for name in options.metrics if name not in known]
    if unknown:
        raise UserError("metrics", f"must be of {', '.join(known)}", ", ".join(unknown))
    sets: dict[str, str] = {}
    for name in known:
        if name.startswith("val/"):
            sets.setdefault(name.rpartition("/")[0], name)
    summaries = [_summary(run, options.metrics or ("loss", *sets.values())) for run in runs]
    header = ["time" if name == "time_s" else name for name in summaries[0] if name != "of"]
    rows = [header, *map(_cells, summaries)]
    if options.plot is not None:
        if len(runs) > _MAX_CURVES:
            raise UserError("plot", f"must have at most {_MAX_CURVES} runs", len(runs))
        sections = [
            Section("Runs", table=[list(map(Cell, row)) for row in rows]),
            *curve_sections(runs, options.metrics or known),
        ]
        write_atomic(options.plot, build_page("Runs side by side", sections))
    if options.json:
        return [json.dumps(summaries, indent=2, ensure_ascii=False)]
    if options.format == "markdown":
        rule = ["---", *["---:"] * (len(rows[0]) - 1)]
        bar = "\\|"
        return [f"| {' | '.join(cell.replace('|', bar) for cell in row)} |" for row in (rows[0], rule, *rows[1:])]
    return list(align(rows))


def find_runs(folders: Sequence[Path]) -> list[RunRecord]:
    """Find the runs in folders or in their subfolders, each once; a UserError if there is none."""
    found: dict[Path, None] = {}
    for folder in folders:
        logs = [*folder.glob("metrics.jsonl")] or sorted(folder.glob("*/metrics.jsonl"))
        check(logs, folder, "must be the folder of a run or of runs, but has no metrics.jsonl")
        found |= dict.fromkeys(path.parent for path in logs)
    names = [path.resolve().name for path in found]
    return [_read(path, str(path) if names.count(name) > 1 else name) for path, name in zip(found, names, strict=True)]


def _read(folder: Path, name: str) -> RunRecord:
    total = None
    with suppress(OSError, ValueError, KeyError):
        settings: dict[str, Any] = tomllib.loads((folder / "config.toml").read_text(encoding="utf-8"))
        native = settings.get("data", {}).get("native")
        native = decode(NativeConfig, native) if isinstance(native, dict) else None
        total = int(settings["samples_seen"] // (native.samples_per_step if native else settings["batch_size"]))
    return RunRecord(name, total, read_metrics(folder / "metrics.jsonl"))


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Read rows of numbers; see `read_rows`."""
    return [{k: float(v) for k, v in row.items() if isinstance(v, int | float)} for row in read_rows(path)]


def _summary(run: RunRecord, metrics: Sequence[str]) -> dict[str, Any]:
    samples, seconds = run.latest("samples"), run.latest("time_s")
    rate = samples / seconds if samples is not None and seconds else None
    line: dict[str, Any] = {"run": run.name, "steps": run.latest("step"), "of": run.total_steps, "samples": samples}
    line |= {"samples/s": rate, "time_s": seconds}
    for name in metrics:
        values = [value for _, value in run.column(name)]
        line[name] = run.latest(name)
        line[f"{name} (best)"] = (min if lower_is_better(name) else max)(values, default=None)
    return line


def _cells(line: Mapping[str, Any]) -> list[str]:
    cells = {
        name: "–" if value is None else f"{value:.4g}" for name, value in line.items() if name not in {"run", "of"}
    }
    whole = ("steps", "samples", "samples/s")
    cells |= {name: f"{line[name]:,.0f}" for name in whole if line[name] is not None}
    if line["time_s"] is not None:
        cells["time_s"] = str(timedelta(seconds=round(line["time_s"])))
    if line["of"] is not None:
        cells["steps"] += f" of {line['of']:,}"
    return [line["run"], *cells.values()]


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
    curves = {run.name: run.column(name) for run in runs}
    lines = [Line(key, [point[0] for point in curve], [point[1] for point in curve]) for key, curve in curves.items()]
    description = f"{name} of {', '.join(run.name for run in runs)} by samples seen"
    few = all(len(line.x) <= 40 for line in lines)
    return line_chart(name, description, lines, x_label="samples seen", marks=few)
