"""`prolip data index`: write an index of shards, or compare one with them."""

from __future__ import annotations

from prolip.cli.command import finish, parse
from prolip.closing import command
from prolip.data.config import IndexOptions


def run(prog: str, words: list[str]) -> int:
    """Write or check an index; returns the exit status, 1 if a checked index differs from its shards."""
    options = parse(IndexOptions, prog, words)
    from prolip.data.index import run_index

    status, lines = run_index(options)
    again = ("--shards", *options.shards)
    then = command("train", "RECIPE", *again, "--data.index", options.out)
    if status:
        then = command("data", "index", *again, "--out", options.out)
    finish(lines, then, [] if options.check else [options.out])
    return status
