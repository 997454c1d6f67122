"""`prolip export`: a run or a checkpoint in the hub's layout."""

from __future__ import annotations

from prolip.cli.command import parse, prepare, write_lines
from prolip.interop.config import ExportOptions


def run(prog: str, words: list[str]) -> int:
    """Parse the options, run the command, write its lines."""
    options = parse(ExportOptions, prog, words)
    prepare()
    from prolip.interop.export import run_export

    write_lines(run_export(options))
    return 0
