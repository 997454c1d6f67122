"""`prolip data rank`: rank embedded samples."""

from __future__ import annotations

from prolip.cli.command import finish, parse, prepare
from prolip.closing import command
from prolip.embeddings.config import RankOptions


def run(prog: str, words: list[str]) -> int:
    """Parse the options, run the command, write its lines."""
    options = parse(RankOptions, prog, words)
    prepare()
    from prolip.embeddings.rank import run_rank

    then = command("data", "filter", "--ranking", options.out, "--keep_share", "0.8", "--out", "FOLDER")
    finish(run_rank(options), then, [options.out, options.sheet])
    return 0
