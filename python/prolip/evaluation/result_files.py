"""Write a suite's results as results.json, results.md and results.html, one page that loads nothing from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prolip.errors import UserError
from prolip.evaluation.compare import Compared, compare
from prolip.evaluation.results import SuiteResult, Unit
from prolip.evaluation.typed_json import to_json
from prolip.files import write_atomic
from prolip.metrics.statistics import Interval
from prolip.report import charts
from prolip.report.suite_page import SuitePage, TableRow, build_suite_page

MAIN, REST = "Main figures", "All other figures"


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


@dataclass(frozen=True, kw_only=True)
class ResultsJson:
    """Contents of results.json."""

    suite: str
    models: dict[str, str]
    """Fingerprint of each model."""
    figures: list[FigureJson]
    notes: dict[str, list[str]]
    """What was left out and why, and other remarks, by model."""


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
    tables = [
        (title, rows)
        for title, main in ((MAIN, True), (REST, False))
        if (rows := [table_row(figure) for figure in compared if figure.row.main is main])
    ]
    suite, notes = results[0].suite, {result.model: result.notes for result in results}
    found = ResultsJson(
        suite=suite,
        models={result.model: result.fingerprint for result in results},
        figures=[_figure(figure, names) for figure in compared],
        notes=notes,
    )
    page = SuitePage(
        suite=suite,
        models=names,
        tables=tables,
        notes=notes,
        charts={result.model: [(chart.title, chart.text, chart.svg) for chart in result.charts] for result in results},
        differences=[
            (model, difference_chart(names[0], model, place, compared)) for place, model in enumerate(names[1:])
        ],
    )
    write_atomic(folder / "results.json", to_json(found))
    write_atomic(folder / "results.md", markdown(page))
    write_atomic(folder / "results.html", build_suite_page(page))
    shown = dict(tables)
    remarks = [f"{model}: {note}" for model, lines in notes.items() for note in lines]
    table = markdown_table(names, shown.get(MAIN) or shown.get(REST, []))
    return [*table, *(["", *remarks] if remarks else [])]


def difference_chart(first: str, other: str, place: int, compared: Sequence[Compared]) -> str:
    """SVG of the main figures' differences from the first model, as intervals; "" if there are none."""
    rows = [
        charts.Spread(
            label=f"{figure.row.task}, {figure.row.metric}",
            mean=100 * figure.differences[place].value,
            low=100 * figure.differences[place].low,
            high=100 * figure.differences[place].high,
            untrained=math.nan,
        )
        for figure in compared
        if figure.row.main and figure.row.unit == "share" and math.isfinite(figure.differences[place].value)
    ]
    if not rows:
        return ""
    text = "; ".join(f"{row.label}: {row.mean:+.2f}" for row in rows)
    return charts.interval_chart(f"{other} minus {first}", text, rows, "points: right of 0 it is larger")


def table_row(figure: Compared) -> TableRow:
    """A compared row as text."""
    unit = figure.row.unit
    return TableRow(
        task=figure.row.task,
        metric=figure.row.metric,
        num_items=figure.row.num_items,
        values=[written(value, unit) for value in figure.values],
        differences=[written(value, unit, signed=True) for value in figure.differences],
        decided=[value.low > 0 or value.high < 0 for value in figure.differences],
    )


def written(value: Interval, unit: Unit, *, signed: bool = False) -> str:
    """A value with its interval, as text; shares in percent, "–" for NaN."""
    if not math.isfinite(value.value):
        return "–"
    factor = 100 if unit == "share" else 1
    sign = "+" if signed else ""
    form = f"{sign}.2f" if unit == "share" else f"{sign}.4g"
    text = format(factor * value.value, form)
    if math.isfinite(value.low + value.high):
        text += f" ({format(factor * value.low, form)} to {format(factor * value.high, form)})"
    return text.replace("-", "−")


def markdown(page: SuitePage) -> str:
    """The page's tables and notes as Markdown."""
    parts = [f"# {page.suite}\n"]
    for title, rows in page.tables:
        parts += [f"## {title}\n", *markdown_table(page.models, rows), ""]
    noted = [f"- {model}: {note}" for model, lines in page.notes.items() for note in lines]
    if noted:
        parts += ["## Notes\n", *noted, ""]
    parts.append("Shares in percent; ranges hold 95 % of bootstrap resamples of the items.\n")
    return "\n".join(parts)


def markdown_table(models: Sequence[str], rows: Sequence[TableRow]) -> list[str]:
    """Lines of a table: one row per figure, one column per model, then the differences from the first model."""
    heads = ["task", "metric", "items", *models, *(f"{model} − {models[0]}" for model in models[1:])]
    lines = [heads, ["---", "---", "---:", *["---:"] * (len(heads) - 3)]]
    lines += [[row.task, row.metric, f"{row.num_items:,}", *row.values, *row.differences] for row in rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


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
    )
