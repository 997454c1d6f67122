"""Read a run's settings from recipes and flags, and write them as TOML that reads back equal.

Flags are one more table, above those of the recipes: `--optim.lr 1e-4` is the key `lr` of the table `[optim]`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import tomli_w

from prolip.data import without_secrets
from prolip.data.config import TokenizerConfig
from prolip.errors import UserError, check, suggestion
from prolip.models.architectures import ARCHITECTURES
from prolip.store.typed_tables import decode, flatten, plain
from prolip.train.config.flags import gather, list_flags
from prolip.train.config.optim import OptimConfig
from prolip.train.config.run import TrainConfig

Table = dict[str, Any]
OF_START = "start_from"
"""The architecture of the start model."""
RUN_SETTINGS = "config.toml"
"""In a run's folder."""
_RECIPES = resources.files("prolip") / "recipes"
_SHORT = {"shards": "data.shards", "threads": "data.num_threads"}


def load_config(arguments: Sequence[str]) -> TrainConfig:
    """Parse a run's command line `RECIPE.toml ... --flag value ...`.

    Args:
        arguments: recipes (paths, or names of the package's), of which later ones win, then flags, which win over
            recipes.

    Raises:
        UserError: a recipe or key is unknown, a key that is no list is given twice, a value has the wrong type, or a
            rule is broken.
    """
    settings: Table = {}
    tokenizer: Table = {}
    given: set[str] = set()
    later: list[Table] = []
    """Since the last one that describes a model."""
    for table in _tables(arguments):
        resized = (settings | table).get("start_resize", "off") != "off"
        starts = table.get("start_from", "None") != "None" and not resized
        # A start brings its architecture, unless one is named with it.
        layer = {"architecture": OF_START} | table if starts else table
        if layer.get("architecture") == OF_START:  # what earlier tables say of a model is not said of the start
            settings.pop("model", None)
            tokenizer = settings.get("data", {}).pop("tokenizer", {})
            given = {key for kept in later for key in flatten(kept)}
            for kept in later:
                settings = _overlaid(settings, kept)
        later = [] if {"model", "architecture"} & layer.keys() else [*later, layer]
        settings = _overlaid(settings, layer)
        given |= flatten(layer).keys()
    keys = flatten(settings)
    base = _base(keys, decode(TokenizerConfig, tokenizer, from_text=True))
    config = decode(TrainConfig, _overlaid(plain(base, "derived"), settings), from_text=True, drop_unknown=True)
    known = flatten(plain(config, "derived"))
    for key in keys:
        if key not in known:
            near = get_close_matches(key, known, 1, 0.4)
            raise UserError(key, f"unknown key; did you mean {near[0]}?" if near else "unknown key")
    config = _fill_in(config, given)
    config.validate()
    return config


def from_toml(text: str) -> TrainConfig:
    """What `to_toml` wrote."""
    config = decode(TrainConfig, tomllib.loads(text), from_text=True)
    config.validate()
    return config


def to_toml(config: TrainConfig, without: Literal["derived", "operational"] = "derived") -> str:
    """TOML that `load_config` reads back. Addresses are without passwords and signatures."""

    def storable(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: storable(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [storable(inner) for inner in value]
        if isinstance(value, str) and "://" in value:
            return without_secrets(value)
        return "None" if value is None else value

    return tomli_w.dumps(storable(plain(config, without)))


def differing_keys(config: TrainConfig, saved: str) -> dict[str, tuple[Any, Any]]:
    """Dotted keys that change what a run computes, with their values in the TOML `saved` and in `config`."""
    old, new = (flatten(tomllib.loads(to_toml(each, without="operational"))) for each in (from_toml(saved), config))
    pairs = {key: (old.get(key), new.get(key)) for key in sorted(new.keys() | old.keys())}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


# ---- Recipes and flags ----


def known_recipes() -> list[str]:
    """The package's. Those that begin with `with-` are additions to any other."""
    return sorted(Path(entry.name).stem for entry in _RECIPES.iterdir())


def recipe_text(name: str) -> str:
    """The text of one of the package's."""
    return (_RECIPES / f"{name}.toml").read_text(encoding="utf-8")


def _tables(arguments: Sequence[str]) -> list[Table]:
    """Those of recipes, then that of the flags."""
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
    return [*tables, flags]


def read_recipe(name: str, folder: Path = Path(), above: tuple[str, ...] = ()) -> list[Table]:
    """Read a recipe, a TOML file or one of the package, with the recipes that it extends; the recipe itself is last.

    The key `extends` names recipes of the package, or paths beside this one; later ones win. A recipe states the
    differences from them.

    Args:
        folder: base of relative paths.
        above: recipes that extend this one.

    Raises:
        UserError: the recipe does not exist, is not valid TOML, or extends itself, directly or through others.
    """
    path = folder / name
    is_file = name.endswith(".toml") or path.is_file()
    recipe = str(path.resolve()) if is_file else name
    check(recipe not in above, recipe, "a recipe must not extend itself", " extends ".join((*above, recipe)))
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig") if is_file else recipe_text(name))
    except FileNotFoundError as error:
        rule = f"no such recipe or TOML file; {suggestion(name, known_recipes())}"
        raise UserError(name, rule) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(path, f"not a TOML file: {error}") from error
    extended = table.pop("extends", [])
    names = [extended] if isinstance(extended, str) else extended
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
        raise UserError(path, "extends must be the name of a recipe, or a list of names", f"{extended!r}")
    inside = path.parent if is_file else Path()
    return [*(lower for each in names for lower in read_recipe(each, inside, (*above, recipe))), table]


def _overlaid(below: Any, above: Any, path: str = "") -> Any:
    """Merge tables; everything else, including lists, is replaced by that of `above`.

    A flag names an entry of a list by its number; the next number adds one.
    """
    if not isinstance(above, dict):
        return above
    if isinstance(below, list):
        entries = {str(place): item for place, item in enumerate(below)}
        rule = f"has {len(below)} entries, the next is {len(below)}"
        check(above.keys() <= {*entries, str(len(below))}, path.removesuffix("."), rule, ", ".join(above))
        return [*_overlaid(entries, above, path).values()]
    merged = dict(below) if isinstance(below, dict) else {}
    for name, value in above.items():
        merged[name] = _overlaid(merged.get(name), value, f"{path}{name}.")
    return merged


# ---- Derived settings ----


def _base(keys: Mapping[str, Any], of_recipe: TokenizerConfig) -> TrainConfig:
    """The defaults, with the named architecture, or else the start's with its tokenizer.

    A start without a tokenizer takes the recipe's. If the run has begun earlier, its saved settings count: the start
    may be gone by now, and then its tokenizer is that of the run's checkpoints.
    """
    start, name = keys.get("start_from", "None"), keys.get("architecture", TrainConfig.architecture)
    check(name in {*ARCHITECTURES, OF_START}, "architecture", f"must be one of {', '.join(ARCHITECTURES)}", name)
    for key in ("optim.lr", "optim.warmup_steps"):
        rule = (
            f"must be set with start_from, because the defaults (a rate of {OptimConfig.lr:g} after "
            f"{OptimConfig.warmup_steps:,} steps) would destroy trained weights. Add a recipe, such "
            "as finetune-clip-vit-b16, or write --optim.lr 1e-5 --optim.warmup_steps 1000"
        )
        check(start == "None" or key in keys, key, rule)
    base = TrainConfig(architecture=name, model=ARCHITECTURES.get(name, TrainConfig().model))
    if name != OF_START:
        return base
    check(start != "None", "architecture", f"{OF_START!r} needs --start_from")
    # They import torch, which --help must not wait for.
    from prolip.inference import own_tokenizer
    from prolip.pretrained import read_config

    source, tokenizer = start, None
    run = Path(keys.get("out", base.out)) / RUN_SETTINGS
    if run.is_file() and (saved := from_toml(run.read_text(encoding="utf-8"))).start_from == start:
        model, path = saved.model, saved.data.tokenizer.path
        source, tokenizer = str(run.parent), saved.data.tokenizer if path is None or path.is_file() else None
    else:
        model = read_config(start)
    if {key for key in keys if key.startswith("data.tokenizer.")} - {"data.tokenizer.context_length"}:
        tokenizer = base.data.tokenizer
    tokenizer = tokenizer or own_tokenizer(source, model.text) or of_recipe
    return replace(base, model=model, data=replace(base.data, tokenizer=tokenizer))


def _fill_in(config: TrainConfig, given: set[str]) -> TrainConfig:
    """Derive the settings that were not set.

    - `model.text.vocab_size` of a named architecture grows to what the tokenizer needs.
    - `data.tokenizer.kind` is "file" for a tokenizer.json, and `data.tokenizer.context_length` is that of the model.
    - `data.mask.text_mode` is "remove" if `mask_id` is not a free row of the token table.
    - `data.native.token_budget` is that of `batch_size` images on average.
    """
    text, data = config.model.text, config.data
    tokenizer, mask, native = data.tokenizer, data.mask, data.native
    if tokenizer.path is not None and tokenizer.path.suffix == ".json" and "data.tokenizer.kind" not in given:
        tokenizer = replace(tokenizer, kind="file")
    if "data.tokenizer.context_length" not in given:
        tokenizer = replace(tokenizer, context_length=text.context_length)
    grows = "model.text.vocab_size" not in given and config.architecture != OF_START
    masks = mask is not None and not {"data.mask.text_mode", "data.mask.mask_id"} & given
    needed = _needed_rows(tokenizer) if grows or masks else None
    if needed is not None and grows:
        text = replace(text, vocab_size=max(text.vocab_size, needed))
    if needed is not None and mask is not None and masks and not needed <= mask.mask_id < text.vocab_size:
        mask = replace(mask, text_mode="remove")
    if native is not None and "data.native.token_budget" not in given:
        native = replace(native, token_budget=native.budget_of(config.batch_size))
    data = replace(data, tokenizer=tokenizer, mask=mask, native=native)
    return replace(config, model=replace(config.model, text=text), data=data)


def _needed_rows(config: TokenizerConfig) -> int | None:
    """Of a token table; None if the tokenizer cannot be opened, which is reported later."""
    from prolip.data.tokenizer import Tokenizer  # not needed to print the help

    try:
        return Tokenizer(config).vocab_size
    except (UserError, OSError):
        return None
