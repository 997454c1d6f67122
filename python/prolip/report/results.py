"""Tables and sections of a page from the content of results.json (`prolip.evaluation.result_files`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain, groupby
from typing import Any

from prolip.report.charts import Spread, interval_chart
from prolip.report.page import Card, Figure, Section

MAIN, REST = "Main figures", "All other figures"
_LONG = 40
"""Rows of a table that is collapsed, unless it has main figures."""
RANGES = "Shares are in percent; ranges are 95 % intervals."

Json = Mapping[str, Any]
"""The content of results.json, or one of its figures."""


def result_tables(results: Json) -> dict[str, list[list[str]]]:
    """The main and the other figures as rows of cells, the header first: values by model, differences from the first.

    A table without figures is absent. "–" stands for a value that a model lacks. If promises were measured, they come
    first, with a verdict for each model.
    """
    first, *others = models = [*results["models"]]
    has_verdicts = any(any(figure.get("verdict", {}).values()) for figure in results["figures"])
    has_baselines = not has_verdicts and any(figure.get("baselines") for figure in results["figures"])
    heads = ["items", *models]
    if has_verdicts:
        heads = ["promised", *chain(*((model if others else "measured", "verdict") for model in models)), "items"]
    heads = ["task", "metric", *heads, *(f"{other} − {first}" for other in others)]
    found: dict[str, list[list[str]]] = {}
    for figure in results["figures"]:
        rows = found.setdefault(MAIN if figure["main"] else REST, [[*heads, *(["baselines"] if has_baselines else [])]])
        cells = [f"{figure['num_items']:,}", *(_cell(figure, "value", model) for model in models)]
        if has_verdicts:
            verdicts = (figure["verdict"][model] or "–" for model in models)
            promised = _written(figure["baselines"].get("promised"), figure["unit"])
            cells = [promised, *chain(*zip(cells[1:], verdicts, strict=True)), cells[0]]
        differences = (_cell(figure, "difference", model) for model in others)
        rows.append([figure["task"], figure["metric"], *cells, *differences])
        if has_baselines:
            baselines = figure["baselines"].items()
            rows[-1].append(", ".join(f"{name} {_written(value, figure['unit'])}" for name, value in baselines) or "–")
    return {title: found[title] for title in (MAIN, REST) if title in found}


def result_sections(results: Json) -> list[Section]:
    """A suite's results: main figures, differences between models, charts, notes, all other figures.

    Charts and figures of a group share a section. Figures that have baselines are drawn, main figures as cards,
    and their table comes after the charts, unless the baseline is a promise. A chart without svg is the section's text.
    """
    suite, (first, *others), tables = results["suite"], results["models"], result_tables(results)
    figures, whose = results["figures"], f" · {first}" if others else ""
    cards = [
        Card(figure["task"], figure["metric"] + whose, figure["value"][first], figure["baselines"])
        for figure in figures
        if figure["main"] and figure.get("baselines", {}).keys() - {"promised"} and figure["value"][first] is not None
    ]
    differences = []
    for other in others:
        rows = [
            Spread(f"{figure['task']}, {figure['metric']}", *_interval(figure, "difference", other))
            for figure in figures
            if figure["main"] and figure["unit"] == "share"
        ]
        if svg := _chart(f"{other} minus {first}", rows, "points: right of 0 it is larger"):
            differences.append(Figure(other, svg))
    by_heading: dict[str, list[Figure]] = {}
    texts: dict[str, str] = {}
    for model, charts in results.get("charts", {}).items():
        for chart in charts:
            heading, rest = _place(chart)
            section = by_heading.setdefault(heading, [])
            if chart["svg"]:
                title = " · ".join(filter(None, [rest, model if others else ""]))
                section.append(Figure(title, chart["svg"], chart["text"]))
            else:
                texts[heading] = chart["text"]
    for (heading, title), some in groupby(figures, key=_place):
        beside = [figure for figure in some if figure.get("baselines") and figure["unit"] == "share"]
        if len(beside) > 1:
            ring = next(iter(beside[0]["baselines"]))
            rows = [
                Spread(figure["metric"], *_interval(figure, "value", first), figure["baselines"].get(ring, math.nan))
                for figure in beside
            ]
            by_heading.setdefault(heading, []).append(Figure(title, _chart(title, rows, "%", ring)))
    main, minor = tables.get(MAIN, []), tables.get(REST, [])
    notes = [f"{model}: {note}" for model, lines in results["notes"].items() for note in lines]
    sections = [
        Section(f"{suite}: main figures", RANGES, cards=cards, table=() if cards else main),
        Section(f"Differences from {first}", figures=differences),
        *(Section(heading, texts.get(heading, ""), figures=drawn) for heading, drawn in by_heading.items()),
        Section(f"{suite}: notes", notes=notes),
        Section(f"{suite}: table of main figures", RANGES, table=main if cards else ()),
        Section(f"{suite}: all other figures", RANGES, table=minor, fold=len(minor) > _LONG),
    ]
    return [section for section in sections if any(section[2:]) or section.title in texts]


def _place(item: Json) -> tuple[str, str]:
    """The heading under which a figure or chart is shown, and its title there. Older files have both in one text."""
    if "group" in item:
        return (item["group"], item["title"]) if item["group"] else (item["title"], "")
    heading, _, title = item.get("task", item.get("title", "")).partition(": ")
    return heading, title


def _interval(figure: Json, kind: str, model: str) -> tuple[float, float, float]:
    prefix = "" if kind == "value" else f"{kind}_"
    found = (figure[key][model] for key in (kind, f"{prefix}low", f"{prefix}high"))
    value, low, high = (math.nan if number is None else number for number in found)
    return value, low, high


def _cell(figure: Json, kind: str, model: str) -> str:
    text, *ends = (_written(number, figure["unit"], kind == "difference") for number in _interval(figure, kind, model))
    return text if "–" in ends else f"{text} ({' to '.join(ends)})"


def _written(value: float | None, unit: str, signed: bool = False) -> str:
    """As text, shares in percent; "–" for none."""
    if value is None or math.isnan(value):
        return "–"
    sign = "+" if signed else ""
    return (format(100 * value, f"{sign}.2f") if unit == "share" else format(value, f"{sign}.4g")).replace("-", "−")


def _chart(title: str, rows: Sequence[Spread], unit: str, ring: str = "") -> str:
    percent = [Spread(row.label, *(100 * number for number in row[1:])) for row in rows if not math.isnan(row.value)]
    text = "; ".join(f"{row.label}: {row.value:+.2f}" for row in percent)
    return interval_chart(title, text, percent, unit, ring=ring) if percent else ""
