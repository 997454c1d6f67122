"""`prolip classify`: how probable each label is for an image."""

from __future__ import annotations

from prolip.cli.command import finish, parse, prepare
from prolip.pretrained.config import ClassifyOptions


def run(prog: str, arguments: list[str]) -> int:
    """Parse the options, run the command, write its lines."""
    options = parse(ClassifyOptions, prog, arguments)
    prepare()
    from prolip.pretrained.one_image import run_classify

    then = f"prolip compare {options.image} TEXT ... --checkpoint {options.checkpoint}"
    finish(run_classify(options), then, for_programs=options.json)
    return 0
