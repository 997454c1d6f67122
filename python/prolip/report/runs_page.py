"""The page of several runs: a table, and a chart per metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from prolip.report.charts import Line, line_chart
from prolip.report.templating import open_templates


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A metric of each run over the samples seen."""

    name: str
    lines: Sequence[Line]


def curves_page(table: Sequence[Sequence[str]], sections: Sequence[tuple[str, Sequence[Curve]]]) -> str:
    """Render the page as one HTML file that loads nothing from elsewhere.

    Args:
        table: rows of cells, the header first; the first cell of a row names it.
        sections: headings with their charts.
    """
    drawn = [(heading, [(curve.name, _draw(curve)) for curve in curves]) for heading, curves in sections]
    return open_templates().get_template("runs.html.j2").render(table=table, sections=drawn)


def _draw(curve: Curve) -> Markup:
    description = f"{curve.name} of {', '.join(line.name for line in curve.lines)} by samples seen"
    few = all(len(line.x) <= 40 for line in curve.lines)
    return line_chart(curve.name, description, curve.lines, x_label="samples seen", marks=few)
