"""`prolip runs`: runs side by side."""

from __future__ import annotations

from prolip.cli.command import finish, parse, prepare
from prolip.closing import command
from prolip.train.config.options import RunsOptions


def run(prog: str, words: list[str]) -> int:
    """Parse the options, run the command, write its lines."""
    options = parse(RunsOptions, prog, words)
    prepare()
    from prolip.train.logging.runs import run_runs

    draw = command("runs", *options.folders, "--plot", "runs.html")
    then = f"{draw} draws the curves" if options.plot is None else f"open {options.plot} in a browser"
    finish(run_runs(options), then, [options.plot], for_programs=options.json)
    return 0
