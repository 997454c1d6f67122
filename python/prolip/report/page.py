"""One self-contained HTML page of sections."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image


class Card(NamedTuple):
    """A share as a large number with a bar."""

    label: str
    metric: str
    share: float
    baselines: dict[str, float]
    """To compare with, by name; the first is drawn as a ring on the bar, the others as lines."""


class Cell(NamedTuple):
    """A cell of a table."""

    text: str
    range: str = ""
    """Shown below it."""

    def __str__(self) -> str:
        return f"{self.text} ({self.range})" if self.range else self.text


class Figure(NamedTuple):
    """A chart or a gallery of images."""

    title: str
    markup: str
    """An SVG of `prolip.report.charts`, or other HTML."""
    text: str = ""


class Section(NamedTuple):
    """A part of a page under its heading."""

    title: str
    text: str = ""
    cards: Sequence[Card] = ()
    table: Sequence[Sequence[Cell]] = ()
    """Rows, the header first."""
    figures: Sequence[Figure] = ()
    notes: Sequence[str] = ()
    source: str = ""
    """Preformatted text, such as a configuration; collapsed."""
    fold: bool = False


def build_page(title: str, sections: Sequence[Section], *, kicker: str = "prolip", lead: str = "") -> str:
    """It loads nothing from the network."""
    shown = [
        section._replace(figures=[figure._replace(markup=Markup(figure.markup)) for figure in section.figures])
        for section in sections
    ]
    page = html_environment().get_template("page.html.j2")
    return page.render(title=title, kicker=kicker, lead=lead, sections=shown)


def html_environment(package: str = "prolip.report") -> Environment:
    """Of a package; escapes by default. `style` is the style sheet that pages share."""
    environment = Environment(
        loader=PackageLoader(package, "html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, _, _ = PackageLoader("prolip.report", "html").get_source(environment, "style.css")
    environment.globals["style"] = Markup(style)
    environment.filters["data_uri"] = data_uri
    return environment


def data_uri(image: bytes | NDArray[np.uint8]) -> str:
    """Of a PNG, or of pixels [H, W, 3] as a JPEG."""
    if isinstance(image, bytes):
        return "data:image/png;base64," + base64.b64encode(image).decode("ascii")
    Image.fromarray(image).save(buffer := BytesIO(), "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def matrix(heads: Sequence[str], percents: Sequence[Sequence[int]]) -> str:
    """Whole percentages, with the same heads of rows and columns, as HTML for a `Figure`."""
    rows = [*zip(heads, percents, strict=True)]
    return html_environment().get_template("matrix.html.j2").render(rows=rows)


class Tile(NamedTuple):
    """An image of a gallery."""

    image: bytes | NDArray[np.uint8]
    """A PNG, or pixels [H, W, 3]."""
    title: str
    lines: Sequence[tuple[str, bool]] = ()
    """Below the title, and whether each is right."""


def gallery(tiles: Sequence[Tile], side: int = 64) -> str:
    """Images side by side, `side` pixels wide, as HTML for a `Figure` with the images in it."""
    return html_environment().get_template("gallery.html.j2").render(tiles=tiles, side=side)
