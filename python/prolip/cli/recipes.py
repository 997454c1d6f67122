"""`prolip recipes`: list the recipes and their cost, or print one."""

from __future__ import annotations

from prolip.cli.command import parse, prepare, write_lines
from prolip.train.config.options import RecipesOptions


def run(prog: str, words: list[str]) -> int:
    """Parse the options, run the command, write its lines."""
    options = parse(RecipesOptions, prog, words)
    prepare()
    from prolip.train.dry_run import run_recipes

    write_lines(run_recipes(options))
    return 0
