"""Tables and sections of a page from the content of results.json (`prolip.evaluation.result_files`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from prolip.report.charts import Spread, interval_chart
from prolip.report.page import Card, Figure, Section

MAIN, REST = "Main figures", "All other figures"
RANGES = "Shares are in percent; ranges hold 95 % of bootstrap resamples of the items."

Json = Mapping[str, Any]
"""The content of results.json, or one of its figures."""


def result_tables(results: Json) -> dict[str, list[list[str]]]:
    """The main and the other figures as rows of cells, the header first: values by model, differences from the first.

    A table without figures is absent. "–" stands for a value that a model lacks.
    """
    first, *others = results["models"]
    has_baselines = any(figure.get("baselines") for figure in results["figures"])
    heads = ["task", "metric", "items", first, *others, *(f"{other} − {first}" for other in others)]
    found: dict[str, list[list[str]]] = {}
    for figure in results["figures"]:
        rows = found.setdefault(MAIN if figure["main"] else REST, [[*heads, *(["baselines"] if has_baselines else [])]])
        values = (_cell(figure, "value", model) for model in (first, *others))
        differences = (_cell(figure, "difference", model) for model in others)
        rows.append([figure["task"], figure["metric"], f"{figure['num_items']:,}", *values, *differences])
        if has_baselines:
            baselines = figure["baselines"].items()
            rows[-1].append(", ".join(f"{name} {_written(value, figure['unit'])}" for name, value in baselines) or "–")
    return {title: found[title] for title in (MAIN, REST) if title in found}


def result_sections(results: Json) -> list[Section]:
    """A suite's results: main figures, differences between models, charts, notes, all other figures.

    Charts and tasks are called `HEADING: TITLE`; those with the same heading share a section. Figures of a task that
    have baselines are drawn, main figures with several baselines as cards. A chart without svg is the section's text.
    """
    suite, (first, *others), tables = results["suite"], results["models"], result_tables(results)
    figures = results["figures"]
    cards = [
        Card(figure["task"], figure["value"][first], figure["baselines"])
        for figure in figures
        if figure["main"] and len(figure.get("baselines", {})) > 1
    ]
    differences = [Figure(other, svg) for other in others if (svg := _difference_chart(figures, first, other))]
    by_heading: dict[str, list[Figure]] = {}
    texts: dict[str, str] = {}
    for model, charts in results.get("charts", {}).items():
        for chart in charts:
            heading, _, rest = chart["title"].partition(": ")
            section = by_heading.setdefault(heading, [])
            if chart["svg"]:
                title = " · ".join(filter(None, [rest, model if others else ""]))
                section.append(Figure(title, chart["svg"], chart["text"]))
            else:
                texts[heading] = chart["text"]
    for task, some in groupby(figures, key=lambda figure: figure["task"]):
        heading, _, title = task.partition(": ")
        if svg := _task_chart(title, list(some), first):
            by_heading.setdefault(heading, []).append(Figure(title, svg))
    notes = [f"{model}: {note}" for model, lines in results["notes"].items() for note in lines]
    sections = [
        Section(f"{suite}: main figures", RANGES, cards=cards, table=tables.get(MAIN, ())),
        Section(f"Differences from {first}", figures=differences),
        *(Section(heading, texts.get(heading, ""), figures=drawn) for heading, drawn in by_heading.items()),
        Section(f"{suite}: notes", notes=notes),
        Section(f"{suite}: all other figures", RANGES, table=tables.get(REST, ())),
    ]
    return [section for section in sections if any(section[2:]) or section.title in texts]


def _cell(figure: Json, value: str, model: str) -> str:
    text, *ends = (_written(figure[key][model], figure["unit"], value == "difference") for key in _ends(value))
    return text if "–" in ends else f"{text} ({' to '.join(ends)})"


def _written(value: float | None, unit: str, signed: bool = False) -> str:
    """A value as text, shares in percent; "–" for none."""
    if value is None or not math.isfinite(value):
        return "–"
    sign = "+" if signed else ""
    return (format(100 * value, f"{sign}.2f") if unit == "share" else format(value, f"{sign}.4g")).replace("-", "−")


def _difference_chart(figures: Sequence[Json], first: str, other: str) -> str:
    """SVG of the main figures' differences from the first model, as intervals; "" if there are none."""
    rows = [
        Spread(f"{figure['task']}, {figure['metric']}", *_percent(figure, "difference", other))
        for figure in figures
        if figure["main"] and figure["unit"] == "share" and figure["difference"][other] is not None
    ]
    text = "; ".join(f"{row.label}: {row.value:+.2f}" for row in rows)
    return interval_chart(f"{other} minus {first}", text, rows, "points: right of 0 it is larger") if rows else ""


def _task_chart(title: str, figures: Sequence[Json], model: str) -> str:
    """SVG of a task's shares, with rings for the first baseline; "" for fewer than two."""
    rows = [
        Spread(figure["metric"], *_percent(figure, "value", model), 100 * _number(next(iter(baselines.values()))))
        for figure in figures
        if (baselines := figure.get("baselines")) and figure["unit"] == "share"
    ]
    text = "; ".join(f"{row.label}: {row.value:.1f}, untrained {row.untrained:.1f}" for row in rows)
    return interval_chart(title, text, rows, "%") if len(rows) > 1 else ""


def _percent(figure: Json, value: str, model: str) -> tuple[float, float, float]:
    """A value and the ends of its interval, in percent; NaN if absent."""
    middle, low, high = (100 * _number(figure[key][model]) for key in _ends(value))
    return middle, low, high


def _ends(value: str) -> tuple[str, str, str]:
    prefix = "" if value == "value" else f"{value}_"
    return value, f"{prefix}low", f"{prefix}high"


def _number(value: float | None) -> float:
    return math.nan if value is None else value
