"""Write a suite's results as results.json, results.md and results.html, one page that loads nothing from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prolip.errors import UserError
from prolip.evaluation.compare import Compared, compare
from prolip.evaluation.results import Chart, SuiteResult
from prolip.evaluation.typed_json import to_json
from prolip.files import write_atomic
from prolip.report.page import build_page
from prolip.report.results import MAIN, RANGES, REST, Json, result_sections, result_tables


@dataclass(frozen=True, kw_only=True)
class FigureJson:
    """A row of results.json: values by model, differences from the first model, intervals with 95 % of resamples."""

    task: str
    metric: str
    main: bool
    unit: str
    num_items: int
    value: dict[str, float]
    """By model."""
    low: dict[str, float]
    high: dict[str, float]
    difference: dict[str, float]
    difference_low: dict[str, float]
    difference_high: dict[str, float]
    baselines: dict[str, float]
    """Values to compare those of the first model with, by name."""


@dataclass(frozen=True, kw_only=True)
class ResultsJson:
    """Contents of results.json."""

    suite: str
    models: dict[str, str]
    """Fingerprint of each model."""
    figures: list[FigureJson]
    notes: dict[str, list[str]]
    """What was left out and why, and other remarks, by model."""
    charts: dict[str, list[Chart]]
    """By model."""


def write_results(folder: Path, results: Sequence[SuiteResult], *, num_resamples: int, seed: int) -> list[str]:
    """Write the three files, and return the lines to print: the main figures and the notes.

    Args:
        folder: where the files go.
        results: of one suite, one per model.
        num_resamples: resamples per interval; 0 for no intervals.
        seed: seed of the resampling.

    Raises:
        UserError: two models have the same name.
    """
    names = [result.model for result in results]
    if len(set(names)) < len(names):
        raise UserError(f"checkpoint is {names}: each model can be named once")
    compared = compare(results, num_resamples=num_resamples, seed=seed)
    found = ResultsJson(
        suite=results[0].suite,
        models={result.model: result.fingerprint for result in results},
        figures=[_figure(figure, names) for figure in compared],
        notes={result.model: result.notes for result in results},
        charts={result.model: result.charts for result in results},
    )
    text = to_json(found)
    content = json.loads(text)
    write_atomic(folder / "results.json", text)
    write_atomic(folder / "results.md", _markdown(content))
    page = build_page(" beside ".join(names), result_sections(content), kicker=f"prolip eval {found.suite}")
    write_atomic(folder / "results.html", page)
    tables = result_tables(content)
    remarks = [f"{model}: {note}" for model, lines in found.notes.items() for note in lines]
    table = _markdown_table(tables.get(MAIN) or tables.get(REST, []))
    return [*table, *(["", *remarks] if remarks else [])]


def _markdown(results: Json) -> str:
    parts = [f"# {results['suite']}\n"]
    for title, rows in result_tables(results).items():
        parts += [f"## {title}\n", *_markdown_table(rows), ""]
    noted = [f"- {model}: {note}" for model, lines in results["notes"].items() for note in lines]
    if noted:
        parts += ["## Notes\n", *noted, ""]
    return "\n".join([*parts, f"{RANGES}\n"])


def _markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    rule = [["---", "---", *["---:"] * (len(row) - 2)] for row in rows[:1]]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (*rows[:1], *rule, *rows[1:])]


def _figure(figure: Compared, names: Sequence[str]) -> FigureJson:
    row, values, others = figure.row, dict(zip(names, figure.values, strict=True)), names[1:]
    differences = dict(zip(others, figure.differences, strict=True))
    return FigureJson(
        task=row.task,
        metric=row.metric,
        main=row.main,
        unit=row.unit,
        num_items=row.num_items,
        value={name: value.value for name, value in values.items()},
        low={name: value.low for name, value in values.items()},
        high={name: value.high for name, value in values.items()},
        difference={name: value.value for name, value in differences.items()},
        difference_low={name: value.low for name, value in differences.items()},
        difference_high={name: value.high for name, value in differences.items()},
        baselines=row.baselines,
    )
