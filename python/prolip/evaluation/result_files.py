"""Write results.json, results.md and results.html, which loads nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec

from prolip.errors import UserError
from prolip.evaluation.results import Compared, SuiteResult, compare
from prolip.metrics.statistics import Interval
from prolip.report.page import Cell, build_page
from prolip.report.results import MAIN, RANGES, REST, result_notes, result_sections, result_tables
from prolip.store.atomic_writes import write_atomic


def write_results(folder: Path, results: Sequence[SuiteResult], *, num_resamples: int, seed: int) -> list[str]:
    """Write the three files; returns the lines to print: the main figures and the notes.

    `results` are of one suite, one per model. results.json has a figure for each row: by model its value and its
    difference from the first model's, with intervals.

    Raises:
        UserError: two models have the same name.
    """
    suite, models = results[0].suite, [result.model for result in results]
    if len(set(models)) < len(models):
        raise UserError("checkpoint", "must name each model once", ", ".join(models))
    figures = compare(results, num_resamples=num_resamples, seed=seed)
    found = {
        "suite": suite,
        "models": {result.model: result.fingerprint for result in results},
        "figures": [_figure(figure, models) for figure in figures],
        "notes": {result.model: result.notes for result in results},
        "charts": {result.model: result.charts for result in results},
    }
    text = msgspec.json.format(msgspec.json.encode(found, enc_hook=str), indent=2)  # NaN becomes null
    content = json.loads(text)
    tables = {title: _markdown_table(rows) for title, rows in result_tables(content).items()}
    remarks = result_notes(content)
    sections = tables | ({"Notes": [f"- {remark}" for remark in remarks]} if remarks else {})
    lines = [line for title, some in sections.items() for line in (f"## {title}", "", *some, "")]
    page = build_page(" beside ".join(models), result_sections(content), kicker=f"prolip eval {suite}")
    write_atomic(folder / "results.json", f"{text.decode()}\n")
    write_atomic(folder / "results.md", "\n".join([f"# {suite}", "", *lines, f"{RANGES}\n"]))
    write_atomic(folder / "results.html", page)
    return [*(tables.get(MAIN) or tables.get(REST, [])), *(["", *remarks] if remarks else [])]


def _markdown_table(rows: Sequence[Sequence[Cell]]) -> list[str]:
    rule = [[Cell("---"), Cell("---"), *[Cell("---:")] * (len(row) - 2)] for row in rows[:1]]
    return [
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in (*rows[:1], *rule, *rows[1:])
    ]


def _figure(figure: Compared, models: Sequence[str]) -> dict[str, object]:
    columns: dict[str, object] = {
        f"{prefix}{end}": {name: getattr(interval, end) for name, interval in zip(names, intervals, strict=True)}
        for prefix, names, intervals in (("", models, figure.values), ("difference_", models[1:], figure.differences))
        for end in Interval._fields
    }
    columns["difference"] = columns.pop("difference_value")
    columns["verdict"] = dict(zip(models, figure.verdicts, strict=True))
    return {name: getattr(figure.row, name) for name in ("id", "main", "num_items", "baselines")} | columns
