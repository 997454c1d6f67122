"""A contact sheet: rows of images or captions, each row under a heading, as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from prolip.embeddings.originals import Original
from prolip.images.preprocess import Pixels
from prolip.report.page import html_environment

SIDE = 160


class Cell(NamedTuple):
    """One item of a row."""

    title: str
    contents: Original | None
    """Its image and caption; None if they could not be fetched."""
    lines: Sequence[str]


class Row(NamedTuple):
    """A heading and its items."""

    title: str
    image: Pixels | None
    """An image beside the heading, such as the query."""
    cells: Sequence[Cell]


def contact_sheet(title: str, rows: Sequence[Row]) -> str:
    """Return the page's HTML."""
    environment = html_environment("prolip.embeddings")
    return environment.get_template("contact_sheet.html.j2").render(title=title, rows=rows, side=SIDE)
