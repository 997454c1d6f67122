"""Gaussians in part files, as `prolip embed` writes them, without a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from prolip.embeddings.config import Stored
from prolip.embeddings.storage import Manifest, PartNotes, Rows, Settings, write_part
from prolip.gaussian import Gaussian


def some_gaussians(rows: int, dim: int, *, seed: int) -> Gaussian:
    """Gaussians around a few centres. Their variances differ enough to change the order of neighbours."""
    noise = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(max(1, rows // 100), dim))
    mean = centres[noise.integers(0, len(centres), rows)] + noise.normal(size=(rows, dim))
    log_var = np.log(0.1 / dim) + noise.normal(size=(rows, 1)) + 0.3 * noise.normal(size=(rows, dim))
    return Gaussian(F.normalize(torch.from_numpy(mean), dim=-1), torch.from_numpy(log_var))


def embedded(folder: Path, items: Gaussian, *, rows_per_part: int, dtype: Stored = "float32") -> None:
    """Writes the Gaussians as images of shards."""
    mean, log_var = (each.float().numpy() for each in items)
    names = []
    for number, start in enumerate(range(0, len(mean), rows_per_part)):
        here = slice(start, start + rows_per_part)
        keys = [f"{row}.jpg" for row in range(len(mean))[here]]
        rows = Rows(keys, [f"shard-{number}.tar"] * len(keys), mean[here], log_var[here])
        notes = PartNotes(number=number, kind="image", rows=len(keys))
        names.append(write_part(folder, rows, notes, dtype).name)
    Manifest(
        checkpoint="none",
        weights="none",
        tokenizer=None,
        model={},
        dim=mean.shape[1],
        dtype=dtype,
        settings=Settings(what="image", caption_key="txt", precision="fp32"),
        plan=[],
        complete=True,
        parts=names,
        rows={"image": len(mean)},
    ).write(folder)
