"""`prolip calibrate`: fit a model's probabilities, label sets and "don't know" on labelled images."""

from __future__ import annotations

from prolip.cli.command import parse, prepare, write_lines
from prolip.suites.config import CalibrateOptions


def run(prog: str, words: list[str]) -> int:
    """Parse the options, run the command, write its lines."""
    options = parse(CalibrateOptions, prog, words)
    prepare()
    from prolip.suites.calibrate import run_calibrate

    write_lines(run_calibrate(options))
    return 0
