"""A small `prolip embed`: its options, and the rows that it has written."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from prolip.embeddings.config import EmbedOptions, Kind
from prolip.embeddings.storage import complete_parts


def options(source: Path, out: Path, **changes: object) -> EmbedOptions:
    given = {
        "checkpoint": str(source / "run"),
        "out": out,
        "shards": (str(source / "shard{0..2}.tar"),),
        "batch_size": 2,
    }
    return EmbedOptions(**(given | {"device": "cpu"} | changes))  # type: ignore[arg-type]


def read(out: Path, kind: Kind) -> tuple[list[str], list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Keys, sources, means, log variances and total variances of all parts."""
    keys, sources, blocks = [], [], []
    for part in complete_parts(out, kind)[1]:
        some, where = part.names()
        keys, sources = keys + some, sources + where
        blocks += list(part.blocks(2, log_var=True))
    assert all(block.log_var is not None for block in blocks)
    mean, log_var, total = ([getattr(block, name) for block in blocks] for name in ("mean", "log_var", "total_var"))
    return keys, sources, np.concatenate(mean), np.concatenate(log_var), np.concatenate(total)
