"""`prolip adapt`: uncertainty for a frozen CLIP or SigLIP."""

from __future__ import annotations

from prolip.adapt.config import AdaptOptions
from prolip.cli.command import parse, prepare, write_lines


def run(prog: str, words: list[str]) -> int:
    """Parse the options, run the command, write its lines."""
    options = parse(AdaptOptions, prog, words)
    prepare()
    from prolip.adapt.run import run_adapt

    write_lines(run_adapt(options))
    return 0
