"""Embedded shards to rank, and rankings to filter by."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from tests.support.shards import write_tar
from tests.support.vector_rows import write_parts

from prolip.embeddings.config import RankOptions
from prolip.embeddings.rank import run_rank
from prolip.gaussian import Gaussian

SIZES = (5, 3, 6)


def shards(lab: Path) -> list[Path]:
    return [lab / "data" / "ab"[shard % 2] / f"{shard}.tar" for shard in range(3)]


def of_uncertainty(values: Iterable[float]) -> Gaussian:
    """Items of one dimension."""
    variances = torch.tensor([*values]).float()[:, None]
    return Gaussian(torch.ones_like(variances), variances.log())


def rank_numbered(folder: Path, count: int) -> Path:
    """A ranking of the samples k0, k1, … of one shard, whose scores are 1, 2, …"""
    write_parts(folder / "out", {"image": of_uncertainty(range(1, count + 1))}, [count])
    ranking = folder / "ranking.csv"
    run_rank(RankOptions(embeddings=folder / "out", out=ranking))
    write_tar(folder / "0.tar", [(f"k{place}.txt", b"") for place in range(count)])
    ranking.write_text(ranking.read_text().replace("0.tar", str(folder / "0.tar")))
    return ranking
