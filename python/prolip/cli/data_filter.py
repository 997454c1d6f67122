"""`prolip data filter`: copy shards with the samples that a ranking keeps."""

from __future__ import annotations

from prolip.cli.command import parse, prepare, write_lines
from prolip.embeddings.config import FilterOptions


def run(prog: str, words: list[str]) -> int:
    """Parse the options, run the command, write its lines."""
    options = parse(FilterOptions, prog, words)
    prepare()
    from prolip.embeddings.filter import run_filter

    write_lines(run_filter(options))
    return 0
