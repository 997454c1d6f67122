"""Answers of the page: a paragraph, and a table or cards of texts and bars. `answer.html.j2` draws them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from prolip.report.page import html_environment


class Range(NamedTuple):
    """A range of uncertainties (total variances)."""

    low: float
    high: float
    of: str
    """The items of the range, in words."""


class Bar(NamedTuple):
    """A number drawn as a bar; places in percent of the whole width."""

    text: str
    left: float
    width: float
    colour: str = "s0"
    mark: float | None = None


class Column(NamedTuple):
    """A column of a table."""

    name: str
    hint: str
    cells: Sequence[Bar | str]


class Answer(NamedTuple):
    """What a panel shows."""

    text: str
    head: str = ""
    names: Sequence[str] = ()
    columns: Sequence[Column] = ()
    images: Sequence[str] = ()
    """URIs: then each row is a card with its image and the cell of the only column."""


def render(*answers: Answer) -> str:
    """Render answers as HTML."""
    return html_environment("prolip.explore").get_template("answer.html.j2").render(answers=answers)


def percent(share: float, digits: int = 1) -> str:
    """In percent, without a line break."""
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def signed(value: float, form: str = "+.3f") -> str:
    """With its sign, and a real minus."""
    return format(value, form).replace("-", "−")


def bar(text: str, share: float, colour: str = "s0", mark: float | None = None) -> Bar:
    """Draw a share from the left."""
    return Bar(text, 0, 100 * max(0.0, min(1.0, share)), colour, mark)


def shares(name: str, hint: str, values: Sequence[float], colour: str = "s0") -> Column:
    """A column of shares in percent."""
    return Column(name, hint, [bar(percent(value), value, colour) for value in values])


def uncertainties(values: Sequence[float], scale: Range) -> Column:
    """A column of uncertainties over their range, with the percentage above the lowest.

    Values outside the scale widen the range.
    """
    low, high = min(*values, scale.low), max(*values, scale.high)
    cells = []
    for value in values:
        above = f" +{percent(value / low - 1, 2 if value < 1.1 * low else 1)}" if value > low > 0 else ""
        cells.append(bar(f"{value:#.4g}{above}", (value - low) / (high - low or 1), "s1"))
    hint = f"percent above the most certain {scale.of}; the bar ends at the least certain"
    return Column("uncertainty", hint, cells)


def inclusions(values: Sequence[float], hint: str) -> Column:
    """A column of inclusion scores H, drawn from the middle: positive values to the right."""
    largest = max(map(abs, values)) or 1.0
    cells = []
    for value in values:
        width, text = 50 * abs(value) / largest, signed(value, "+#.3g")
        cells.append(Bar(text, 50, width, "s0", 50) if value >= 0 else Bar(text, 50 - width, width, "minus", 50))
    return Column("inclusion H", hint, cells)
