"""A picture sheet: rows of pictures or captions under a heading each, one HTML file that needs no other."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO
from typing import NamedTuple

from jinja2 import Environment
from PIL import Image

from prolip.embeddings.row_contents import Contents, Picture

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


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 1200px; padding: 0 1rem; color: #1b1b1f;
  background: #fff }
h2 { display: flex; align-items: center; gap: .75rem; font-size: 1.15rem; margin: 2rem 0 .75rem }
ol { display: grid; grid-template-columns: repeat(auto-fill, minmax({{ side }}px, 1fr)); gap: 1rem; list-style: none;
  padding: 0; margin: 0 }
li { border: 1px solid #d9d9e0; border-radius: 6px; padding: .5rem; overflow-wrap: anywhere }
img { display: block; border-radius: 4px; max-width: 100% }
.absent { width: {{ side }}px; max-width: 100%; aspect-ratio: 1; display: grid; place-items: center;
  background: #f1f1f4; color: #5c5c66 }
blockquote { margin: .4rem 0; font-size: 1.05rem }
p { margin: .15rem 0; font-size: .85rem; color: #4a4a52 }
strong { color: #1b1b1f }
</style>
</head>
<body>
<h1>{{ title }}</h1>
{% for row in rows %}
<h2>{% if row.picture is not none %}<img src="{{ row.picture | data_uri }}" width="64" height="64" alt="">{% endif %}
{{ row.title }}</h2>
<ol>
{% for cell in row.cells %}
<li>
{% if cell.contents is not none and cell.contents.picture is not none %}
<img src="{{ cell.contents.picture | data_uri }}" width="{{ side }}" height="{{ side }}" alt="{{ cell.title }}">
{% elif cell.contents is none or cell.contents.caption is none %}<div class="absent">not found</div>{% endif %}
{% if cell.contents is not none and cell.contents.caption is not none %}
<blockquote>{{ cell.contents.caption }}</blockquote>{% endif %}
<p><strong>{{ cell.title }}</strong></p>
{% for line in cell.lines %}<p>{{ line }}</p>
{% endfor %}</li>
{% endfor %}
</ol>
{% endfor %}
</body>
</html>
"""


def picture_sheet(title: str, rows: Sequence[Row]) -> str:
    """The page."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["data_uri"] = data_uri
    return environment.from_string(_PAGE).render(title=title, rows=rows, side=SIDE)


def data_uri(picture: Picture) -> str:
    """A picture as a JPEG inside an address."""
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
