"""`prolip calibrate`: fit a model's probabilities, label sets and "don't know" on labelled images."""

from __future__ import annotations

from pathlib import Path

from prolip.cli.command import finish, parse, prepare
from prolip.closing import command
from prolip.evaluation.config import CalibrateOptions


def run(prog: str, words: list[str]) -> int:
    """Parse the options, run the command, write its lines."""
    options = parse(CalibrateOptions, prog, words)
    prepare()
    from prolip.evaluation.calibrate import run_calibrate

    elsewhere: list[str | Path] = [] if options.out is None else ["--calibration", options.out]
    then = command("classify", "IMAGE", "--checkpoint", options.checkpoint, *elsewhere, "--guarantee", "0.95")
    finish(run_calibrate(options), then, [options.path])
    return 0
