"""`prolip data rank`: rank embedded samples."""

from __future__ import annotations

from prolip.cli.command import parse, prepare, write_lines
from prolip.embeddings.config import RankOptions


def run(prog: str, words: list[str]) -> int:
    """Parse the options, run the command, write its lines."""
    options = parse(RankOptions, prog, words)
    prepare()
    from prolip.embeddings.rank import run_rank

    write_lines(run_rank(options))
    return 0
