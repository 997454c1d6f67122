"""`prolip compare`: an image beside texts."""

from __future__ import annotations

from prolip.cli.command import parse, prepare, write_lines
from prolip.pretrained.config import CompareOptions


def run(prog: str, words: list[str]) -> int:
    """Parse the options, run the command, write its lines."""
    options = parse(CompareOptions, prog, words)
    prepare()
    from prolip.pretrained.one_image import run_compare

    write_lines(run_compare(options))
    return 0
