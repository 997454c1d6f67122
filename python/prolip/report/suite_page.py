"""The page of a suite: models side by side, what was left out, and the suite's charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from prolip.report.templating import open_templates


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """A figure as text."""

    task: str
    metric: str
    num_items: int
    values: Sequence[str]
    """One a model."""
    differences: Sequence[str]
    """One a model but the first."""
    decided: Sequence[bool]
    """Whether the interval of each difference leaves zero out."""


@dataclass(frozen=True, kw_only=True)
class SuitePage:
    """What the page shows."""

    suite: str
    models: Sequence[str]
    tables: Sequence[tuple[str, Sequence[TableRow]]]
    """Titles and rows."""
    notes: Mapping[str, Sequence[str]]
    """What was left out, by model."""
    charts: Mapping[str, Sequence[tuple[str, str, str]]]
    """Title, words and svg, by model."""
    differences: Sequence[tuple[str, str]]
    """A chart of the differences from the first model for each other one, which it may lack."""


def build_suite_page(page: SuitePage) -> str:
    """The page's HTML, which asks no server for anything."""
    # The same chart of every model side by side.
    titles = list(dict.fromkeys(title for charts in page.charts.values() for title, _, _ in charts))
    drawn = [(model, *chart) for model, charts in page.charts.items() for chart in charts]
    charts = [
        (title, [(model, text, Markup(svg)) for model, name, text, svg in drawn if name == title]) for title in titles
    ]
    differences = [(model, Markup(svg)) for model, svg in page.differences if svg]
    return open_templates().get_template("suite.html.j2").render(page=page, charts=charts, differences=differences)
