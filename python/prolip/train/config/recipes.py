"""Read a run's settings from recipes and flags, and write them as TOML that reads back equal.

Flags are one more table, merged above those of the recipes: `--optim.lr 1e-4` is the key `lr` of the table `[optim]`.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from prolip.data import without_secrets
from prolip.data.config import TokenizerConfig
from prolip.errors import UserError, check, suggestion
from prolip.models.architectures import ARCHITECTURES
from prolip.store.typed_tables import decode, flatten, plain
from prolip.train.config.flags import gather, list_flags
from prolip.train.config.run import TrainConfig
from prolip.train.config.sections import OptimConfig

Table = dict[str, Any]
OF_START = "start_from"
"""The architecture of the model that a run starts from."""
RUN_SETTINGS = "config.toml"
"""The file in a run's folder with its settings."""
MULTIPLY = "multiply"
"""The table of a recipe whose values are factors on the values of earlier recipes."""
ADDITION = "with-"
"""Prefix of recipes that only change others."""
_RECIPES = resources.files("prolip") / "recipes"
_SHORT = {"shards": "data.shards", "threads": "data.num_threads"}
"""Short options, and their keys."""


def load_config(arguments: Sequence[str]) -> TrainConfig:
    """Parse the command line `RECIPE.toml ... --flag value ...` of a run.

    Args:
        arguments: recipes (paths, or names of the package's recipes), of which later ones win, then flags, which win
            over recipes.

    Raises:
        UserError: a recipe or key is unknown, a key that is no list is given twice, a value has the wrong type, or a
            rule is broken.
    """
    tables, flags = _read(arguments)
    tables.append(flags)
    origin = _find_origin(tables)
    _check_rates(origin.start, tables)
    base = TrainConfig(model=ARCHITECTURES.get(origin.architecture, TrainConfig().model))
    given = {key for table in tables[origin.described :] for key in flatten(table)}
    if origin.start is not None and origin.architecture == OF_START:
        out = next((table["out"] for table in tables[::-1] if "out" in table), base.out)
        base, keys = _like_the_start(base, origin.start, given, _saved_settings(Path(str(out))))
        for table in tables[: origin.described]:
            for key in keys:
                _drop(table, key)
    config, unknown = _resolved(base, tables)
    if unknown:
        raise UserError(unknown[0], _hint(unknown[0], config))
    config = _fill_in(config, given, origin)
    config.validate()
    return config


def from_toml(text: str) -> TrainConfig:
    """The settings that `to_toml` wrote; a UserError if another version of prolip did."""
    table = tomllib.loads(text)
    for key in ("data.native.packed", "choose"):  # of older runs: images are padded now, and all samples trained on
        _drop(table, key)
    base = TrainConfig(model=ARCHITECTURES.get(table.get("architecture", ""), TrainConfig().model))
    config, unknown = _resolved(base, [table])
    if unknown:
        raise UserError(
            ", ".join(unknown),
            "unknown to this version of prolip; the run can be loaded and evaluated, but not resumed or exported",
        )
    config.validate()
    return config


def to_toml(config: TrainConfig, without: Literal["derived", "operational"] = "derived") -> str:
    """Write the settings as TOML that `load_config` reads back. Addresses are without passwords and signatures."""
    return "\n".join(_toml_lines(plain(config, without), "")) + "\n"


def differing_keys(config: TrainConfig, saved: str) -> dict[str, tuple[Any, Any]]:
    """The dotted keys that change what a run computes, with their values in the TOML `saved` and in `config`."""
    both = from_toml(saved), config
    old, new = (flatten(tomllib.loads(to_toml(one, without="operational"))) for one in both)
    pairs = {key: (old.get(key), new.get(key)) for key in sorted(new.keys() | old.keys())}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


# ---- Recipes ----


def known_recipes() -> list[str]:
    """Names of the package's recipes. Those that begin with `with-` are additions to any other."""
    return sorted(Path(entry.name).stem for entry in _RECIPES.iterdir())


def read_recipe(name: str, folder: Path = Path(), above: tuple[str, ...] = ()) -> list[Table]:
    """Read a recipe, a TOML file or one of the package, with the recipes that it extends; the recipe itself is last.

    The key `extends` names recipes of the package, or paths beside this one; later ones win. A recipe states the
    differences from them. Factors in its table `multiply` scale their values.

    Args:
        folder: base of relative paths.
        above: recipes that extend this one.

    Raises:
        UserError: the recipe does not exist, is not valid TOML, or extends itself, directly or through others.
    """
    path = folder / name
    is_file = name.endswith(".toml") or path.is_file()
    chain = (*above, str(path.resolve()) if is_file else name)
    check(chain[-1] not in above, chain[0], "a recipe must not extend itself", " extends ".join(chain))
    table = _read_table(path if is_file else _RECIPES / f"{name}.toml", str(path) if is_file else name)
    extended = table.pop("extends", [])
    names = [extended] if isinstance(extended, str) else extended
    if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
        raise UserError(path, "extends must be the name of a recipe, or a list of names", f"{extended!r}")
    inside = path.parent if is_file else Path()
    return [*(found for one in names for found in read_recipe(one, inside, chain)), table]


def _read_table(source: Path | Traversable, name: str) -> Table:
    try:
        return tomllib.loads(source.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        rule = f"no such recipe or TOML file; {suggestion(name, known_recipes())}"
        raise UserError(name, rule) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(name, f"not a TOML file: {error}") from error


# ---- Flags and tables ----


def _read(arguments: Sequence[str]) -> tuple[list[Table], Table]:
    lists = list_flags(TrainConfig)
    words = gather(arguments, lists, _SHORT)
    tables = [table for name in words.pop("") for table in read_recipe(name)]
    flags: Table = {}
    for key, (flag, *rest) in words.items():
        values = [*flag.split("=", 1)[1:], *rest]
        is_list = key.rpartition(".")[2] in lists
        check(values or is_list, f"--{key}", "needs a value")
        value: Any = values if is_list or len(values) > 1 else values[0]
        for name in reversed(key.split(".")):
            value = {name: value}
        flags = _overlaid(flags, value)
    return tables, flags


def _resolved(base: TrainConfig, tables: Iterable[Table]) -> tuple[TrainConfig, list[str]]:
    """Lay tables over `base`, later ones win; returns the keys that are unknown, too."""
    tree = plain(base, "derived")
    for table in tables:
        tree = _overlaid(tree, {key: value for key, value in table.items() if key != MULTIPLY})
        tree = _overlaid(tree, table.get(MULTIPLY, {}), multiply=True)
    config = decode(TrainConfig, tree, from_text=True, drop_unknown=True)
    known = flatten(plain(config, "derived"))
    return config, [key for key in flatten(tree) if key not in known]


def _overlaid(below: Any, above: Any, path: str = "", *, multiply: bool = False) -> Any:
    """Lay `above` over `below`: tables are merged, everything else, including lists, is replaced or multiplied.

    A flag names an entry of a list by its number; the next number adds one.
    """
    key = path.removesuffix(".")
    if not isinstance(above, dict):
        check(not isinstance(below, dict) or above == "None", key, "is a table; set one of its keys", above)
        if not multiply:
            return above
        check(
            all(isinstance(one, int | float) for one in (below, above)), key, f"cannot be multiplied by {above}", below
        )
        return below * above
    if isinstance(below, list):
        numbered = {str(place): item for place, item in enumerate([*below, {}])}
        check(
            above.keys() <= numbered.keys(),
            key,
            f"has {len(below)} entries, the next is {len(below)}",
            ", ".join(above),
        )
        if str(len(below)) not in above:
            numbered.popitem()
        return [*_overlaid(numbered, above, path, multiply=multiply).values()]
    check(below in (None, "None") or isinstance(below, dict), key, "is no table", below)
    merged = dict(below) if isinstance(below, dict) else {}
    for name, value in above.items():
        merged[name] = _overlaid(merged.get(name), value, f"{path}{name}.", multiply=multiply)
    return merged


def _drop(table: Table, key: str) -> None:
    first, _, rest = key.partition(".")
    if not rest:
        table.pop(first, None)
    elif isinstance(table.get(first), dict):
        _drop(table[first], rest)


def _hint(key: str, config: TrainConfig) -> str:
    """The rule for an unknown key. The last part decides, since all keys of a table begin alike."""
    known = flatten(plain(config, "derived"))
    close = difflib.get_close_matches(key.rpartition(".")[2], {name.rpartition(".")[2]: name for name in known}, 1)
    near = [name for name in known if close and name.rpartition(".")[2] == close[0]]
    return f"unknown key; did you mean {', '.join(near)}?" if near else "unknown key; prolip train --help lists all"


def _toml_lines(table: Mapping[str, Any], path: str) -> Iterator[str]:
    tables = {}
    for key, value in table.items():
        if isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict)):
            tables[key] = value
        else:
            yield f"{key} = {_toml_value(value)}"
    for key, value in tables.items():
        header, items = (f"[{path}{key}]", [value]) if isinstance(value, dict) else (f"[[{path}{key}]]", value)
        for item in items:
            yield from ("", header)
            yield from _toml_lines(item, f"{path}{key}.")


def _toml_value(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # TOML has inf, -inf and nan
    if isinstance(value, str) and "://" in value:
        value = without_secrets(value)
    return json.dumps("None" if value is None else value, ensure_ascii=False)


# ---- Derived settings ----


class _Origin(NamedTuple):
    architecture: str
    """A name of `ARCHITECTURES`, or `OF_START`."""
    start: str | None
    """The model to start from; None for random weights."""
    described: int
    """Number of leading tables that describe another model than the start; their model settings are ignored."""


def _find_origin(tables: Sequence[Mapping[str, Any]]) -> _Origin:
    """The start and the architecture that recipes and flags choose; later choices win.

    A start brings its architecture unless one is named with it or later, or its tables are resized.
    """
    keys = ("architecture", "start_from", "start_resize")
    latest = {key: place for key in keys for place, table in enumerate(tables) if key in table}
    chosen = {key: str(tables[place][key]) for key, place in latest.items()}
    start = None if chosen.get("start_from", "None") == "None" else chosen["start_from"]
    architecture = chosen.get("architecture", TrainConfig.architecture if start is None else OF_START)
    first = latest.get("architecture", 0)
    # A start that is resized, such as LongProLIP's, takes the architecture of the recipe.
    resized = chosen.get("start_resize", "off") != "off"
    if start is not None and architecture != OF_START and latest["start_from"] > first and not resized:
        architecture, first = OF_START, latest["start_from"]
    if architecture == OF_START and start is None:
        raise UserError("architecture", f"{OF_START!r} needs --start_from")
    check(
        architecture in {*ARCHITECTURES, OF_START},
        "architecture",
        f"must be one of {', '.join(ARCHITECTURES)}",
        f"{architecture!r}",
    )
    describing = [place for place, table in enumerate(tables[:first]) if {"model", "architecture"} & table.keys()]
    return _Origin(architecture, start, max(describing, default=-1) + 1 if architecture == OF_START else 0)


def _check_rates(start: str | None, tables: Sequence[Table]) -> None:
    """Refuse a start from a trained model with the learning rate and warm-up of pre-training."""
    given = {key for table in tables for key in flatten(table)}
    unset = [key for key in ("optim.lr", "optim.warmup_steps") if key not in given]
    if start is not None and unset:
        raise UserError(
            unset[0],
            f"must be set with start_from, because the defaults (a rate of {OptimConfig.lr:g} after "
            f"{OptimConfig.warmup_steps:,} steps) would destroy trained weights. Add a recipe, such "
            "as finetune-clip-vit-b16, or write --optim.lr 1e-5 --optim.warmup_steps 1000",
        )


def _saved_settings(out: Path) -> TrainConfig | None:
    """The settings saved in the run's folder; None if it has no run of this version."""
    try:
        return from_toml((out / RUN_SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # errors of the folder are reported when the run resumes
        return None


def _like_the_start(
    base: TrainConfig, start: str, given: set[str], saved: TrainConfig | None
) -> tuple[TrainConfig, list[str]]:
    """The defaults with the start's architecture and tokenizer, and the keys that earlier tables must not set.

    If the run has begun earlier, both come from its saved settings: the start may be gone by now.
    """
    # These import torch, which --help must not wait for.
    from prolip.inference import own_tokenizer
    from prolip.pretrained import read_config

    begun = saved is not None and saved.start_from == start
    model = saved.model if saved is not None and begun else read_config(start)
    if any(key.startswith("data.tokenizer.") and key != "data.tokenizer.context_length" for key in given):
        return dataclasses.replace(base, model=model), ["model", "data.tokenizer"]
    source = start
    if saved is not None and begun:
        path = saved.data.tokenizer.path
        source = "" if path is None or path.is_file() else str(saved.out)  # whose checkpoints have a copy
    known = saved.data.tokenizer if saved is not None and not source else own_tokenizer(source, model.text)
    if known is None:
        return dataclasses.replace(base, model=model), ["model"]
    data = dataclasses.replace(base.data, tokenizer=known)
    return dataclasses.replace(base, model=model, data=data), ["model", "data.tokenizer"]


def _fill_in(config: TrainConfig, given: set[str], origin: _Origin) -> TrainConfig:
    """Derive the settings that were not set.

    - `model.text.vocab_size` of a named architecture grows to what the tokenizer needs.
    - `data.tokenizer.kind` is "file" for a tokenizer.json, and `data.tokenizer.context_length` is that of the model.
    - `data.mask.text_mode` is "remove" if `mask_id` is not a free row of the token table.
    - `data.native.token_budget` is that of `batch_size` images on average.
    """
    text, tokenizer, mask = config.model.text, config.data.tokenizer, config.data.mask
    if tokenizer.path is not None and tokenizer.path.suffix == ".json" and "data.tokenizer.kind" not in given:
        tokenizer = dataclasses.replace(tokenizer, kind="file")
    if "data.tokenizer.context_length" not in given:
        tokenizer = dataclasses.replace(tokenizer, context_length=text.context_length)
    grows = "model.text.vocab_size" not in given and origin.architecture != OF_START
    masks = mask is not None and not {"data.mask.text_mode", "data.mask.mask_id"} & given
    needed = _needed_rows(tokenizer) if grows or masks else None
    if needed is not None and grows:
        text = dataclasses.replace(text, vocab_size=max(text.vocab_size, needed))
    if needed is not None and mask is not None and masks and not needed <= mask.mask_id < text.vocab_size:
        mask = dataclasses.replace(mask, text_mode="remove")
    native = config.data.native
    if native is not None and "data.native.token_budget" not in given:
        native = dataclasses.replace(native, token_budget=native.budget_of(config.batch_size))
    return dataclasses.replace(
        config,
        architecture=origin.architecture,
        model=dataclasses.replace(config.model, text=text),
        data=dataclasses.replace(config.data, tokenizer=tokenizer, mask=mask, native=native),
    )


@cache
def _needed_rows(config: TokenizerConfig) -> int | None:
    """The rows that a tokenizer needs in a token table; None if it cannot be opened, which is reported later."""
    from prolip.data.tokenizer import Tokenizer  # not needed to print the help

    try:
        return Tokenizer(config).vocab_size
    except (UserError, OSError):
        return None
