"""`prolip adapt`: uncertainty for a frozen CLIP or SigLIP."""

from __future__ import annotations

from prolip.adapt.config import AdaptOptions
from prolip.cli.command import finish, parse, prepare


def run(prog: str, arguments: list[str]) -> int:
    """Run the command."""
    options = parse(AdaptOptions, prog, arguments)
    prepare()
    from prolip.adapt.run import run_adapt

    return finish(run_adapt(options), f"prolip classify IMAGE LABEL ... --checkpoint {options.out}", [options.out])
