"""`prolip recipes`: list the recipes and their cost, or print one."""

from __future__ import annotations

from prolip.cli.command import finish, parse, prepare
from prolip.train.config.options import RecipesOptions


def run(prog: str, arguments: list[str]) -> int:
    """Run the command."""
    options = parse(RecipesOptions, prog, arguments)
    prepare()
    from prolip.train.dry_run import run_recipes

    then = f"prolip train {' '.join(options.names) or 'RECIPE'} --shards SHARD ... --dry-run"
    return finish(run_recipes(options), then, for_programs=bool(options.names))
