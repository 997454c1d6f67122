"""Embedded shards to rank, and rankings to filter by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tests.support.shards import write_tar

from prolip.embeddings.config import RankOptions
from prolip.embeddings.rank import run_rank
from prolip.embeddings.storage import Manifest, PartNotes, Rows, Settings, write_part

SIZES = (5, 3, 6)


def shards(lab: Path) -> list[Path]:
    return [lab / "data" / "ab"[shard % 2] / f"{shard}.tar" for shard in range(3)]


def write_parts(folder: Path, total_vars: list[float], per_part: int) -> None:
    """Embeddings of images with given uncertainties, one dimension, in parts."""
    folder.mkdir()
    files = []
    for number, start in enumerate(range(0, len(total_vars), per_part)):
        some = np.array(total_vars[start : start + per_part], np.float32)[:, None]
        keys = [f"k{start + place}" for place in range(len(some))]
        rows = Rows(keys, [f"{number}.tar"] * len(keys), np.ones_like(some), np.log(some))
        notes = PartNotes(number=number, kind="image", rows=len(keys))
        files.append(write_part(folder, rows, notes).name)
    made_of: dict[str, Any] = {
        "checkpoint": "x",
        "weights": "",
        "tokenizer": None,
        "model": {},
        "settings": Settings(what="image", caption_key="txt", precision="fp32"),
    }
    Manifest(
        **made_of, dim=1, dtype="float32", plan=[], complete=True, parts=files
    ).write(folder)  # fmt: skip


def rank_numbered(folder: Path, count: int) -> Path:
    """A ranking of the samples k0, k1, … of one shard, whose scores are 1, 2, …"""
    write_parts(folder / "out", [float(place + 1) for place in range(count)], count)
    ranking = folder / "ranking.csv"
    run_rank(RankOptions(embeddings=folder / "out", out=ranking))
    write_tar(folder / "0.tar", [(f"k{place}.txt", b"") for place in range(count)])
    ranking.write_text(ranking.read_text().replace("0.tar", str(folder / "0.tar")))
    return ranking
