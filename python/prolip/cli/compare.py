"""`prolip compare`: compare an image with texts."""

from __future__ import annotations

from prolip.cli.command import finish, parse, prepare
from prolip.inference.config import CompareOptions


def run(prog: str, arguments: list[str]) -> int:
    """Run the command."""
    options = parse(CompareOptions, prog, arguments)
    prepare()
    from prolip.inference.one_image import run_compare

    return finish(run_compare(options), f"prolip explore --checkpoint {options.checkpoint}", for_programs=options.json)
