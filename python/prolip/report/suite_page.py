"""The page of a suite: models side by side, notes on what was skipped, and charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from prolip.report.templating import open_templates


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """A row of a table, formatted as text."""

    task: str
    metric: str
    num_items: int
    values: Sequence[str]
    """One value per model."""
    differences: Sequence[str]
    """The difference of each further model from the first."""
    decided: Sequence[bool]
    """Whether the interval of each difference excludes zero."""


@dataclass(frozen=True, kw_only=True)
class SuitePage:
    """The content of the page."""

    suite: str
    models: Sequence[str]
    tables: Sequence[tuple[str, Sequence[TableRow]]]
    """Titles and rows."""
    notes: Mapping[str, Sequence[str]]
    """Notes by model, on what was skipped."""
    charts: Mapping[str, Sequence[tuple[str, str, str]]]
    """Title, caption and SVG of each chart, by model."""
    differences: Sequence[tuple[str, str]]
    """Each further model with a chart (SVG) of its differences from the first; "" for no chart."""


def build_suite_page(page: SuitePage) -> str:
    """Render the page as one HTML file that loads nothing from elsewhere."""
    # Group charts by title, so that the charts of all models are side by side.
    titles = list(dict.fromkeys(title for charts in page.charts.values() for title, _, _ in charts))
    drawn = [(model, *chart) for model, charts in page.charts.items() for chart in charts]
    charts = [
        (title, [(model, text, Markup(svg)) for model, name, text, svg in drawn if name == title]) for title in titles
    ]
    differences = [(model, Markup(svg)) for model, svg in page.differences if svg]
    return open_templates().get_template("suite.html.j2").render(page=page, charts=charts, differences=differences)
