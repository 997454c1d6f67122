"""`prolip calibrate`: fit a model's probabilities, label sets and "don't know" on labelled images, or its searches."""

from __future__ import annotations

from prolip.cli.command import finish, parse, prepare
from prolip.evaluation.config import CalibrateOptions, CalibrateSearchOptions


def run(prog: str, arguments: list[str]) -> int:
    """Run the command."""
    if arguments[:1] == ["search"]:
        return _search(f"{prog} search", arguments[1:])
    options = parse(CalibrateOptions, prog, arguments)
    prepare()
    from prolip.evaluation.calibrate import run_calibrate

    then = f"prolip classify IMAGE --checkpoint {options.checkpoint} --calibration {options.path} --guarantee 0.95"
    return finish(run_calibrate(options), then, [options.path])


def _search(prog: str, arguments: list[str]) -> int:
    options = parse(CalibrateSearchOptions, prog, arguments)
    prepare()
    from prolip.evaluation.calibrate_search import run_calibrate_search

    then = f"prolip search --embeddings FOLDER --text TEXT --calibration {options.path} --max_wrong 0.1"
    return finish(run_calibrate_search(options), then, [options.path])
