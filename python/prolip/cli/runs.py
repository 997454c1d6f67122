"""`prolip runs`: runs side by side."""

from __future__ import annotations

from prolip.cli.command import parse, prepare, write_lines
from prolip.train.config.options import RunsOptions


def run(prog: str, words: list[str]) -> int:
    """Parse the options, run the command, write its lines."""
    options = parse(RunsOptions, prog, words)
    prepare()
    from prolip.train.logging.runs import run_runs

    write_lines(run_runs(options))
    return 0
