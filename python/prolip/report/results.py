"""Tables and sections of a page from results.json (`prolip.evaluation.result_files`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain, groupby
from typing import Any

from prolip.report.charts import Spread, interval_chart
from prolip.report.page import Card, Cell, Figure, Section
from prolip.report.words import is_share, measure_words, task_words

MAIN, REST = "Main figures", "All other figures"
_LONG = 40
"""Rows of a table that is collapsed, unless it has main figures."""
RANGES = "Shares are in percent; ranges are 95 % intervals."

Json = Mapping[str, Any]
"""All of results.json, or one of its figures."""


def result_tables(results: Json) -> dict[str, list[list[Cell]]]:
    """The main and the other figures as rows of cells, the header first: values by model, differences from the first.

    A table without figures is absent. "–" stands for a value that a model lacks. Promises, if measured, come first,
    with a verdict for each model.
    """
    first, *others = models = [*results["models"]]
    has_verdicts = any(any(figure["verdict"].values()) for figure in results["figures"])
    has_baselines = not has_verdicts and any(figure["baselines"] for figure in results["figures"])
    heads = ["items", *models]
    if has_verdicts:
        heads = ["promised", *chain(*((model if others else "measured", "verdict") for model in models)), "items"]
    heads = ["task", "metric", *heads, *(f"{other} − {first}" for other in others)]
    found: dict[str, list[list[Cell]]] = {}
    for figure in results["figures"]:
        head = [Cell(text) for text in (*heads, *(["baselines"] if has_baselines else []))]
        rows = found.setdefault(MAIN if figure["main"] else REST, [head])
        cells = [Cell(f"{figure['num_items']:,}"), *(_cell(figure, "value", model) for model in models)]
        if has_verdicts:
            verdicts = (Cell(figure["verdict"][model] or "–") for model in models)
            promised = Cell(_written(figure, figure["baselines"].get("promised")))
            cells = [promised, *chain(*zip(cells[1:], verdicts, strict=True)), cells[0]]
        differences = (_cell(figure, "difference", model) for model in others)
        rows.append([Cell(task_words(figure["id"])), Cell(measure_words(figure["id"])), *cells, *differences])
        if has_baselines:
            baselines = (f"{name} {_written(figure, value)}" for name, value in figure["baselines"].items())
            rows[-1].append(Cell(", ".join(baselines) or "–"))
    return {title: found[title] for title in (MAIN, REST) if title in found}


def result_notes(results: Json) -> list[str]:
    """With a warning of each main figure below what was promised, by model."""
    notes = []
    for model, lines in results["notes"].items():
        notes += [f"{model}: {line}" for line in lines]
        notes += [
            f"{model}: {task_words(figure['id'])}: warning: {measure_words(figure['id'])}: "
            f"{figure['value'][model]:.1%} of {figure['num_items']:,}, not {100 * figure['baselines']['promised']:g}%"
            for figure in results["figures"]
            if figure["main"] and figure["verdict"][model] == "below"
        ]
    return notes


def result_sections(results: Json) -> list[Section]:
    """A suite's results: main figures, differences between models, charts, notes, all other figures.

    Charts and figures of a group share a section. Figures that have baselines are drawn, main figures as cards, and
    their table comes after the charts, unless the baseline is a promise. A chart without svg is the section's text.
    """
    suite, (first, *others), tables = results["suite"], results["models"], result_tables(results)
    figures, whose = results["figures"], f" · {first}" if others else ""
    cards = [
        Card(
            task_words(figure["id"]),
            measure_words(figure["id"]) + whose,
            figure["value"][first],
            figure["baselines"],
        )
        for figure in figures
        if figure["main"] and figure["baselines"].keys() - {"promised"} and figure["value"][first] is not None
    ]
    differences = []
    for other in others:
        rows = [
            Spread(
                f"{task_words(figure['id'])}, {measure_words(figure['id'])}", *_interval(figure, "difference", other)
            )
            for figure in figures
            if figure["main"] and is_share(figure["id"])
        ]
        if svg := _chart(f"{other} minus {first}", rows, "points: right of 0 it is larger"):
            differences.append(Figure(other, svg))
    by_heading: dict[str, list[Figure]] = {}
    texts: dict[str, str] = {}
    for model, charts in results["charts"].items():
        for chart in charts:
            section = by_heading.setdefault(chart["group"], [])
            if chart["svg"]:
                title = " · ".join(filter(None, [chart["title"], model if others else ""]))
                section.append(Figure(title, chart["svg"], chart["text"]))
            else:
                texts[chart["group"]] = chart["text"]
    for (heading, title), some in groupby(figures, key=_place):
        beside = [figure for figure in some if figure["baselines"] and is_share(figure["id"])]
        if len(beside) > 1:
            ring = next(iter(beside[0]["baselines"]))
            rows = [
                Spread(
                    measure_words(figure["id"]),
                    *_interval(figure, "value", first),
                    figure["baselines"].get(ring, math.nan),
                )
                for figure in beside
            ]
            by_heading.setdefault(heading, []).append(Figure(title, _chart(title, rows, "%", ring)))
    main, minor = tables.get(MAIN, []), tables.get(REST, [])
    sections = [
        Section(f"{suite}: main figures", RANGES, cards=cards, table=() if cards else main),
        Section(f"Differences from {first}", figures=differences),
        *(Section(heading, texts.get(heading, ""), figures=drawn) for heading, drawn in by_heading.items()),
        Section(f"{suite}: notes", notes=result_notes(results)),
        Section(f"{suite}: table of main figures", RANGES, table=main if cards else ()),
        Section(f"{suite}: all other figures", RANGES, table=minor, fold=len(minor) > _LONG),
    ]
    return [section for section in sections if any(section[2:]) or section.title in texts]


def _place(figure: Json) -> tuple[str, str]:
    """The figure's heading, and its title below."""
    group, task = figure["id"]["group"], task_words(figure["id"])
    return (group, task) if group else (task, "")


def _interval(figure: Json, kind: str, model: str) -> tuple[float, float, float]:
    prefix = "" if kind == "value" else f"{kind}_"
    found = (figure[key][model] for key in (kind, f"{prefix}low", f"{prefix}high"))
    value, low, high = (math.nan if number is None else number for number in found)
    return value, low, high


def _cell(figure: Json, kind: str, model: str) -> Cell:
    text, *ends = (_written(figure, number, kind == "difference") for number in _interval(figure, kind, model))
    return Cell(text, "" if "–" in ends else " to ".join(ends))


def _written(figure: Json, value: float | None, signed: bool = False) -> str:
    """As text, shares in percent; "–" for none."""
    if value is None or math.isnan(value):
        return "–"
    sign = "+" if signed else ""
    text = format(100 * value, f"{sign}.2f") if is_share(figure["id"]) else format(value, f"{sign}.4g")
    return text.replace("-", "−")


def _chart(title: str, rows: Sequence[Spread], unit: str, ring: str = "") -> str:
    percent = [Spread(row.label, *(100 * number for number in row[1:])) for row in rows if not math.isnan(row.value)]
    text = "; ".join(f"{row.label}: {row.value:+.2f}" for row in percent)
    return interval_chart(title, text, percent, unit, ring=ring) if percent else ""
