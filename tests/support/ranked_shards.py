"""Embedded shards, and selections of their samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prolip.embeddings.config import SelectOptions
from prolip.embeddings.select import run_select

SIZES = (5, 3, 6)


def shards(lab: Path) -> list[Path]:
    return [lab / "data" / "ab"[shard % 2] / f"{shard}.tar" for shard in range(3)]


def select(embeddings: Path, out: Path, **rules: Any) -> Path:
    """Writes a selection, and returns its path."""
    run_select(SelectOptions(embeddings=str(embeddings), out=str(out), **rules))
    return out
