"""`prolip runs`: runs side by side."""

from __future__ import annotations

from prolip.cli.command import finish, parse, prepare
from prolip.train.config.options import RunsOptions


def run(prog: str, arguments: list[str]) -> int:
    """Run the command."""
    options = parse(RunsOptions, prog, arguments)
    prepare()
    from prolip.train.logging.runs import run_runs

    then = "--plot runs.html draws the curves" if options.plot is None else f"open {options.plot} in a browser"
    return finish(run_runs(options), then, [options.plot], for_programs=options.json)
