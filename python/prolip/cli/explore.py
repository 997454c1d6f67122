"""`prolip explore`: a page to try a model."""

from __future__ import annotations

from prolip.cli.command import ended_by_sigterm, parse, prepare, write_lines
from prolip.explore.config import ExploreOptions


def run(prog: str, arguments: list[str]) -> int:
    """Run the command."""
    options = parse(ExploreOptions, prog, arguments)
    prepare()
    from prolip.explore.serve import run_explore

    with ended_by_sigterm():
        run_explore(options)
    write_lines([f"next: prolip classify IMAGE LABEL ... --checkpoint {options.checkpoint}"])
    return 0
