"""Tables for a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

from prolip.errors import printable


def align(rows: Sequence[Sequence[str]], num_left: int = 1) -> Iterator[str]:
    """Lines of a table: the first `num_left` columns to the left, the others to the right.

    Control characters are escaped, so a row stays a line; it has no blanks at its end. Cells are aligned by their width
    in a terminal.
    """
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        cells = []
        for place, (cell, width) in enumerate(zip(row, widths, strict=True)):
            blanks = " " * (width - _width(cell))
            cells.append(cell + blanks if place < num_left else blanks + cell)
        yield "  ".join(cells).rstrip()


def _width(text: str) -> int:
    """In a terminal: two for wide characters (such as Chinese), none for combining marks."""
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )
