"""`prolip adapt`: uncertainty for a frozen CLIP or SigLIP, or a model of two frozen encoders."""

from __future__ import annotations

from prolip.adapt.config import AdaptOptions
from prolip.cli.command import finish, parse, prepare


def run(prog: str, arguments: list[str]) -> int:
    """Run the command."""
    options = parse(AdaptOptions, prog, arguments)
    prepare()
    from prolip.adapt.aligned import run_align
    from prolip.adapt.run import run_adapt
    from prolip.pretrained.sources import resolve

    lines = (run_adapt if options.image is None else run_align)(options)
    adapted = resolve(options.out).adapter
    then = f"prolip classify IMAGE LABEL ... --checkpoint {options.out}"
    if adapted is not None and adapted[1].source is None:
        then = f"prolip import --image VECTORS.npy --checkpoint {options.out} --out counted"
    return finish(lines, then, [options.out])
