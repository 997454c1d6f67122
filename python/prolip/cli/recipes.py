"""`prolip recipes`: list the recipes, or print one and what it costs."""

from __future__ import annotations

from dataclasses import replace

from prolip.cli.command import finish, parse, prepare
from prolip.train.config import known_recipes, load_config, to_toml
from prolip.train.config.options import RecipesOptions
from prolip.train.config.recipes import recipe_text


def run(prog: str, arguments: list[str]) -> int:
    """Run the command."""
    options = parse(RecipesOptions, prog, arguments)
    then = f"prolip train {' '.join(options.names) or 'RECIPE'} --shards SHARD ... --dry-run"
    names = known_recipes()
    if not options.names:
        width = max(map(len, names))
        abouts = (recipe_text(name).partition("\n")[0].removeprefix("# ") for name in names)
        lines = [f"{name.ljust(width)}  {about}" for name, about in zip(names, abouts, strict=True)]
        return finish(lines, f"prolip recipes NAME, {then}")
    prepare()
    from prolip.train.cost import estimate

    config = load_config([*options.names, "--data.shards", "SHARDS"])
    lines = [*(f"# {line}" for line in estimate(config, options)), ""]
    lines.append(to_toml(replace(config, data=replace(config.data, shards=()))).rstrip("\n"))
    return finish(lines, then, for_programs=True)
