"""Tables of text that data sets come with."""

from __future__ import annotations

import csv
from pathlib import Path

csv.field_size_limit(2**24)


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a table by the names of its columns; a cell that a row lacks is empty.

    Raises:
        ValueError: it is no text, or no table.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file, restval=""))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: {error}") from error
