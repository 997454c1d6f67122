"""`prolip bprw`: weight the prompts of each class by its images."""

from __future__ import annotations

from prolip.cli.command import finish, parse, prepare
from prolip.evaluation.config import ReweightOptions


def run(prog: str, arguments: list[str]) -> int:
    """Run the command."""
    options = parse(ReweightOptions, prog, arguments)
    prepare()
    from prolip.evaluation.reweight import run_reweight

    return finish(
        run_reweight(options),
        "prolip.load(...).classify(..., prompt_weights=...) uses the weights",
        [options.out / "prompt_weights.safetensors", options.out / "prompt_weights.svg"],
    )
