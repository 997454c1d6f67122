"""Embedded shards, and selections of their samples."""

from pathlib import Path
from typing import TypeVar

from prolip.embeddings.config import SelectOptions
from prolip.embeddings.select import run_select

SIZES = (5, 3, 6)


def shards(lab):
    return [lab / "data" / "ab"[shard % 2] / f"{shard}.tar" for shard in range(3)]


Place = TypeVar("Place", str, Path)


def select(embeddings, out, **rules):
    """Writes a selection, and returns its path."""
    run_select(SelectOptions(embeddings=str(embeddings), out=str(out), **rules))
    return out


def contents(chosen):
    """Source and row of each chosen sample."""
    return [(one.source, int(row)) for one in chosen for row in one.rows]
