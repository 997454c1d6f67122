"""`prolip classify`: how probable each label is for an image."""

from __future__ import annotations

from prolip.cli.command import parse, prepare, write_lines
from prolip.pretrained.config import ClassifyOptions


def run(prog: str, words: list[str]) -> int:
    """Parse the options, run the command, write its lines."""
    options = parse(ClassifyOptions, prog, words)
    prepare()
    from prolip.pretrained.one_image import run_classify

    write_lines(run_classify(options))
    return 0
