"""`prolip adapt`: uncertainty for a frozen CLIP or SigLIP."""

from __future__ import annotations

from prolip.adapt.config import AdaptOptions
from prolip.cli.command import finish, parse, prepare
from prolip.closing import command


def run(prog: str, words: list[str]) -> int:
    """Parse the options, run the command, write its lines."""
    options = parse(AdaptOptions, prog, words)
    prepare()
    from prolip.adapt.run import run_adapt

    then = command("classify", "IMAGE", "LABEL", "...", "--checkpoint", options.out)
    finish(run_adapt(options), then, [options.out])
    return 0
