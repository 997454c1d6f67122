"""`prolip data filter`: copy shards with the samples that a ranking keeps."""

from __future__ import annotations

from prolip.cli.command import finish, parse, prepare
from prolip.closing import command
from prolip.embeddings.config import FilterOptions


def run(prog: str, words: list[str]) -> int:
    """Parse the options, run the command, write its lines."""
    options = parse(FilterOptions, prog, words)
    prepare()
    from prolip.embeddings.filter import run_filter

    finish(run_filter(options), command("train", "RECIPE", "--shards", f"{options.out}/**/*.tar"), [options.out])
    return 0
