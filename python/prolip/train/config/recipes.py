"""Read a run's settings from recipes and flags, and write them as TOML that reads back equal."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from prolip.errors import UserError
from prolip.models.architectures import ARCHITECTURES
from prolip.train import flags
from prolip.train.config.follow import OF_START, fill_in, find_origin, given, of_the_start
from prolip.train.config.parts import OptimConfig
from prolip.train.config.run import DERIVED_KEYS, OPERATIONAL_KEYS, TrainConfig

_RECIPES = resources.files("prolip") / "recipes"
_SHORT = {"--shards": "--data.shards", "--threads": "--data.num_threads"}
"""Short options that all commands share, and the keys that they stand for."""
RUN_SETTINGS = "config.toml"
"""The file in a run's folder with its settings."""
_PROG = "prolip train [RECIPE.toml ...]"
_RATES = ("optim.lr", "optim.warmup_steps")


def load_config(arguments: Sequence[str]) -> TrainConfig:
    """Parse the command line `RECIPE.toml ... --flag value ...` of a run.

    Args:
        arguments: recipes (paths, or names of the package's recipes), then flags; later ones win.

    Raises:
        UserError: a recipe or key is unknown, a value cannot be parsed, or a rule is broken; the message has the key.
    """
    names, words = flags.split([_in_full(word) for word in arguments])
    layers = [layer for name in names for layer in read_recipe(name)]
    return _build(layers, words)


def _in_full(word: str) -> str:
    option, equals, value = word.partition("=")
    return f"{_SHORT.get(option, option)}{equals}{value}"


def recipe_values(arguments: Sequence[str]) -> dict[str, Any]:
    """Return what the recipes of a command line set, by dotted key, without parsing its flags.

    Raises:
        UserError: a recipe is unknown or is not valid TOML.
    """
    names, _ = flags.split(arguments)
    tables = [table for name in names for _, table in read_recipe(name)]
    return {key: value for table in tables for key, value in flags.flatten(table).items()}


def from_toml(text: str) -> TrainConfig:
    """Return the settings that `to_toml` wrote.

    Raises:
        UserError: another version of prolip wrote them.
    """
    return _build([("saved configuration", _read_saved(text))], [], is_saved=True)


def _read_saved(text: str) -> dict[str, Any]:
    table = tomllib.loads(text)
    unknown = flags.unknown_keys(TrainConfig(), table, DERIVED_KEYS)
    if unknown:
        raise UserError(
            f"this run was trained by another version of prolip, with settings that this one does not have "
            f"({', '.join(unknown)}): it can be loaded and evaluated, but not resumed or exported"
        )
    return table


def _build(tables: Sequence[flags.NamedTable], words: list[str], *, is_saved: bool = False) -> TrainConfig:
    origin = find_origin(tables, words)
    base = TrainConfig(model=ARCHITECTURES.get(origin.architecture, TrainConfig().model))
    if is_saved:  # the tables are complete
        config = flags.parse(base, tables, words, derived=DERIVED_KEYS, prog=_PROG)
    else:
        _check_rates(origin.start, tables, words)
        if origin.architecture == OF_START:
            base, tables = of_the_start(base, tables, words, origin, _saved_settings(tables, words))
        config = flags.parse(base, tables, words, derived=DERIVED_KEYS, prog=_PROG)
        config = fill_in(config, tables, words, origin)
    config.validate()
    return config


def _saved_settings(tables: Sequence[flags.NamedTable], words: Sequence[str]) -> TrainConfig | None:
    """Return the settings that are saved in the run's folder; None if it has no run of this version."""
    named = [table["out"] for _, table in tables if "out" in table]
    out = flags.last_value(words, "out") or (named[-1] if named else TrainConfig().out)
    try:
        return from_toml((Path(out) / RUN_SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # errors of the folder are reported when the run resumes
        return None


def _check_rates(start: str | None, tables: Sequence[flags.NamedTable], words: Sequence[str]) -> None:
    """Check that a run that starts from a trained model sets its learning rate and warm-up.

    Raises:
        UserError: it would use those of pre-training.
    """
    wanted = [key for key in _RATES if key not in given(tables, words)]
    if start is None or not wanted or "--help" in words:
        return
    usual = OptimConfig()
    are = "is" if len(wanted) == 1 else "are"
    raise UserError(
        f"start_from is {start}, and {' and '.join(wanted)} {are} not set: the defaults "
        f"(a rate of {usual.lr:g} after {usual.warmup_steps:,} steps) are for random weights and would destroy trained "
        "ones. Add a recipe, such as finetune-clip-vit-b16, or write --optim.lr 1e-5 --optim.warmup_steps 1000"
    )


def known_recipes() -> list[str]:
    """List the names of the package's recipes."""
    return sorted(Path(entry.name).stem for entry in _RECIPES.iterdir())


def read_recipe(name: str) -> list[flags.NamedTable]:
    """Read a recipe, a TOML file or one of the package, with the recipes that it extends; the recipe itself is last.

    The key `extends` names a recipe of the package, or a path beside this one. A recipe states the differences from it.

    Raises:
        UserError: the recipe does not exist, is not valid TOML, or extends itself, directly or through others.
    """
    layers: list[flags.NamedTable] = []
    chain: list[str] = []
    wanted, folder = name, Path()
    while True:
        path = folder / wanted
        is_file = wanted.endswith(".toml") or path.is_file()
        label = str(path) if is_file else wanted
        chain.append(str(path.resolve()) if is_file else wanted)
        if chain[-1] in chain[:-1]:
            raise UserError(f"{label} extends itself: {' extends '.join([*(one for one, _ in layers[::-1]), label])}")
        table = _read_table(path if is_file else _RECIPES / f"{wanted}.toml", label, layers)
        extended = table.pop("extends", None)
        layers.insert(0, (label, table))
        if extended is None:
            return layers
        if not isinstance(extended, str):
            raise UserError(f"extends in {label} is {extended!r}: it must be the name of a recipe")
        wanted, folder = extended, path.parent if is_file else Path()


def _read_table(source: Path | Traversable, label: str, above: list[flags.NamedTable]) -> dict[str, Any]:
    try:
        return tomllib.loads(source.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        by = f", which {above[0][0]} extends" if above else ""
        if Path(label).suffix == ".toml":
            raise UserError(f"no recipe {label!r}{by}: there is no such file") from error
        known = ", ".join(known_recipes())
        raise UserError(f"no recipe {label!r}{by}: give the path of a TOML file or one of {known}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{label} is not a recipe, a TOML file: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{label}: {error}") from error


def to_toml(config: TrainConfig) -> str:
    """Write the settings as TOML that `load_config` reads back. Addresses are without passwords and signatures."""
    return flags.to_toml(config, derived=DERIVED_KEYS)


def differing_keys(config: TrainConfig, saved: str) -> list[str]:
    """List the dotted keys that change what a run computes, compared with the settings in the TOML `saved`.

    Raises:
        UserError: another version of prolip wrote them.
    """
    new, old = flags.flatten(tomllib.loads(to_toml(config))), flags.flatten(_read_saved(saved))
    keys = sorted((new.keys() | old.keys()) - OPERATIONAL_KEYS)
    return [key for key in keys if new.get(key) != old.get(key) and not key.startswith("validation.")]
