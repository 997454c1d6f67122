"""`prolip search`: find embedded images or captions."""

from __future__ import annotations

from prolip.cli.command import parse, prepare, write_lines
from prolip.embeddings.config import SearchOptions


def run(prog: str, words: list[str]) -> int:
    """Parse the options, run the command, write its lines."""
    options = parse(SearchOptions, prog, words)
    prepare()
    from prolip.embeddings.queries import run_search

    write_lines(run_search(options))
    return 0
