"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def align(rows: Sequence[Sequence[str]], num_left: int = 1) -> Iterator[str]:
    """Yield the rows of a table as lines: the first `num_left` columns to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = enumerate(zip(row, widths, strict=True))
        yield "  ".join(cell.ljust(width) if place < num_left else cell.rjust(width) for place, (cell, width) in cells)
