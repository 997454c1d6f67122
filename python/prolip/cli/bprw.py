"""`prolip bprw`: weight the prompts of each class by its images."""

from __future__ import annotations

from prolip.cli.command import parse, prepare, write_lines
from prolip.suites.config import ReweightOptions


def run(prog: str, words: list[str]) -> int:
    """Parse the options, run the command, write its lines."""
    options = parse(ReweightOptions, prog, words)
    prepare()
    from prolip.suites.reweight import run_reweight

    write_lines(run_reweight(options))
    return 0
