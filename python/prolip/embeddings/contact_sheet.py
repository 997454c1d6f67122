"""A picture sheet: rows of pictures or captions under a heading each, one HTML file that needs no other."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO
from typing import NamedTuple

from PIL import Image

from prolip.embeddings.originals import Contents, Picture
from prolip.report.templating import open_templates

SIDE = 160
"""Side of a picture on the sheet, in pixels."""


class Cell(NamedTuple):
    """One item of a row."""

    title: str
    contents: Contents | None
    """What is shown; None where it could not be fetched."""
    lines: Sequence[str]
    """What is said below it."""


class Row(NamedTuple):
    """A heading with its items."""

    title: str
    picture: Picture | None
    """A picture beside the heading: that of a query."""
    cells: Sequence[Cell]


def picture_sheet(title: str, rows: Sequence[Row]) -> str:
    """The page."""
    environment = open_templates("prolip.embeddings")
    environment.filters["data_uri"] = data_uri
    return environment.get_template("contact_sheet.html.j2").render(title=title, rows=rows, side=SIDE)


def data_uri(picture: Picture) -> str:
    """A picture as a JPEG inside an address."""
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
