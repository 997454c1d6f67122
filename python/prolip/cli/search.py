"""`prolip search`: find embedded images or captions."""

from __future__ import annotations

from prolip.cli.command import finish, parse, prepare
from prolip.closing import command
from prolip.embeddings.config import SearchOptions


def run(prog: str, words: list[str]) -> int:
    """Parse the options, run the command, write its lines."""
    options = parse(SearchOptions, prog, words)
    prepare()
    from prolip.embeddings.queries import run_search

    then = command("data", "rank", "--embeddings", options.embeddings, "--out", "ranking.csv")
    finish(run_search(options), then, [options.sheet], for_programs=options.json)
    return 0
