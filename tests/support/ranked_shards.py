"""Embedded shards, and selections of their samples."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from prolip.embeddings.config import SelectOptions
from prolip.embeddings.select import run_select
from prolip.store.selection import Chosen

SIZES = (5, 3, 6)


def shards(lab: Path) -> list[Path]:
    return [lab / "data" / "ab"[shard % 2] / f"{shard}.tar" for shard in range(3)]


Place = TypeVar("Place", str, Path)


def select(embeddings: Path | str, out: Place, **rules: Any) -> Place:
    """Writes a selection, and returns its path."""
    run_select(SelectOptions(embeddings=str(embeddings), out=str(out), **rules))
    return out


def contents(chosen: Iterable[Chosen]) -> list[tuple[str, int]]:
    """Source and row of each chosen sample."""
    return [(one.source, int(row)) for one in chosen for row in one.rows]
