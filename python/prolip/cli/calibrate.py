"""`prolip calibrate`: fit a model's probabilities, label sets and "don't know" on labelled images."""

from __future__ import annotations

from prolip.cli.command import finish, parse, prepare
from prolip.evaluation.config import CalibrateOptions


def run(prog: str, arguments: list[str]) -> int:
    """Run the command."""
    options = parse(CalibrateOptions, prog, arguments)
    prepare()
    from prolip.evaluation.calibrate import run_calibrate

    then = f"prolip classify IMAGE --checkpoint {options.checkpoint} --calibration {options.path} --guarantee 0.95"
    return finish(run_calibrate(options), then, [options.path])
