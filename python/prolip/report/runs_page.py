"""Several runs side by side on one page: a table, and a chart for every figure of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from prolip.report.charts import Line, line_chart
from prolip.report.templating import open_templates


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A figure of each run over the samples that it has seen."""

    name: str
    lines: Sequence[Line]


def curves_page(table: Sequence[Sequence[str]], sections: Sequence[tuple[str, Sequence[Curve]]]) -> str:
    """The page's HTML, one file without outside requests.

    Args:
        table: rows of cells, the headings first; the first cell of a row names it.
        sections: a heading each, with its charts.
    """
    drawn = [(heading, [(curve.name, _draw(curve)) for curve in curves]) for heading, curves in sections]
    return open_templates().get_template("runs.html.j2").render(table=table, sections=drawn)


def _draw(curve: Curve) -> Markup:
    description = f"{curve.name} of {', '.join(line.name for line in curve.lines)} by samples seen"
    few = all(len(line.x) <= 40 for line in curve.lines)
    return line_chart(curve.name, description, curve.lines, x_label="samples seen", marks=few)
