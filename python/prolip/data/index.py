"""`prolip data index`: write or check an index of shards."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from prolip.data import StoreConfig, check_index, write_index


@dataclass(frozen=True, kw_only=True)
class IndexOptions:
    """Writes an index of shards: how many samples each holds and where they lie, for `data.index` of a loader."""

    shards: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Paths, addresses, brace patterns, globs, or text files that list them, as the loader will name them."""
    out: Path
    """The index file: a path; the loader may read it from an address."""
    check: bool = False
    """Compare the index with the shards instead, and say what differs."""
    threads: int = 0
    """Shards that are read at the same time; 0 for as many as there are cores."""
    store: StoreConfig = field(default_factory=StoreConfig)
    """How shards are read that lie elsewhere: each is fetched whole."""


def run_index(options: IndexOptions) -> tuple[int, list[str]]:
    """Write the index, or check it with `options.check`.

    Returns:
        The exit status (1 if a checked index does not match its shards) and the lines to print.
    """
    if not options.shards:
        raise ValueError("data.shards is (): name at least one shard")
    shards, threads = list(options.shards), options.threads or os.cpu_count() or 1
    if options.check:
        differences = check_index(shards, options.out, threads, options.store)
        return int(bool(differences)), differences or [f"{options.out} matches its shards"]
    count, samples, notes = write_index(shards, options.out, threads, options.store)
    size = options.out.stat().st_size
    return 0, [f"{options.out}: {samples:,} samples in {count:,} shards, {size:,} bytes", *notes]
