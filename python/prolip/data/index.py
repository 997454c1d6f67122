"""`prolip data index`: write or check an index of shards."""

from __future__ import annotations

from prolip._core import usable_cores
from prolip.data import check_index, write_index
from prolip.data.config import IndexOptions
from prolip.errors import check, check_at_least
from prolip.store.atomic_writes import check_writable


def run_index(options: IndexOptions) -> tuple[int, list[str]]:
    """Write the index, or check it.

    Returns:
        The exit status (1 if the index does not match) and the lines to print.
    """
    check(options.shards, "shards", "must name at least one shard")
    check_at_least(0, threads=options.threads)
    shards, threads = list(options.shards), options.threads or usable_cores()
    if options.check:
        differences = check_index(shards, options.out, threads, options.store)
        return int(bool(differences)), differences or [f"{options.out} matches its shards"]
    check_writable(options.out)
    count, samples, notes = write_index(shards, options.out, threads, options.store)
    size = options.out.stat().st_size
    return 0, [f"{options.out}: {samples:,} samples in {count:,} shards, {size:,} bytes", *notes]
