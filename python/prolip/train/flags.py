"""Parse TOML files and command-line flags into a tree of dataclasses.

TOML files are merged (later files win), turned into flags, followed by the flags of the command line, and parsed by
tyro. So every value is checked in one place, and an error names its dotted key.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import tyro

from prolip.data import without_secrets
from prolip.errors import UserError
from prolip.help_text import one_sentence, paragraphs
from prolip.other_words import nearest, other_key

Tree = TypeVar("Tree")
NamedTable = tuple[str, Mapping[str, Any]]
"""The name of a TOML file and its table."""


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a command line into its leading files and its flags."""
    first_flag = next((i for i, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    return list(arguments[:first_flag]), list(arguments[first_flag:])


def last_value(words: Sequence[str], key: str) -> str | None:
    """Return the last value that the flags set for a key; None if they don't set it."""
    value = None
    for word, following in pairwise([*words, ""]):
        name, equals, given = word.partition("=")
        if name.startswith("--") and name[2:].replace("-", "_") == key:
            value = given if equals else following
    return value


def named(words: Sequence[str]) -> list[str]:
    """Return the keys that the flags set."""
    return [word[2:].split("=")[0].replace("-", "_") for word in words if word.startswith("--")]


def parse(
    base: Tree, tables: Sequence[NamedTable], words: Sequence[str], *, derived: frozenset[str], prog: str
) -> Tree:
    """Return `base` with the values of the tables and the flags; later values win.

    Args:
        base: the tree of defaults: nested dataclasses of plain values and tuples.
        tables: TOML tables with the names of their files.
        words: the flags.
        derived: dotted keys that cannot be set.
        prog: the command, for the help text.

    Raises:
        UserError: a key is unknown or a value cannot be parsed; the message has the dotted key.
    """
    for name, table in tables:
        _check_keys(flatten(table), _with_lengths(base, table), derived, f" in {name}")
    merged: dict[str, Any] = reduce(_merge, (table for _, table in tables), {})
    base = _with_lengths(base, merged)
    _check_keys((key for key in named(words) if key != "help"), base, derived, "")
    with one_sentence(words, "prolip train"):
        parsed = tyro.cli(
            type(base),
            args=[*_as_flags(merged), *words],
            default=base,
            prog=prog,
            use_underscores=True,
            config=(tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands),
            registry=paragraphs(),
        )
    return parsed


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge `above` into `below`: tables are merged, everything else, including lists, is replaced."""
    merged = dict(below)
    for key, value in above.items():
        both_tables = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both_tables else value
    return merged


def _nested(value: object) -> dict[str, Any] | None:
    """Return a table, or a list of tables as a table with the indices as keys; None for a plain value."""
    if isinstance(value, dict):
        return value
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return {str(i): item for i, item in enumerate(value)}
    return None


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the plain values of a nested table by dotted key. Items of a list of tables are numbered."""
    values: dict[str, Any] = {}
    for key, value in table.items():
        inner = _nested(value)
        values |= {prefix + key: value} if inner is None else flatten(inner, f"{prefix}{key}.")
    return values


def _as_flags(table: Mapping[str, Any]) -> Iterator[str]:
    for key, value in flatten(table).items():
        if isinstance(value, list):
            yield f"--{key}"
            yield from map(str, value)
        else:
            yield f"--{key}={value}"


def _with_lengths(default: Any, table: Mapping[str, Any]) -> Any:
    """Return `default` with as many items in each tuple of dataclasses as the table has in its list."""
    hints = typing.get_type_hints(type(default))
    changes: dict[str, Any] = {}
    for name, value in table.items():
        if not hasattr(default, name):
            continue
        if isinstance(value, dict) and dataclasses.is_dataclass(getattr(default, name)):
            changes[name] = _with_lengths(getattr(default, name), value)
        elif isinstance(value, list) and _nested(value) is not None:
            item = typing.get_args(hints[name])[0]
            changes[name] = tuple(_with_lengths(item(), each) for each in value)
    return dataclasses.replace(default, **changes)


def unknown_keys(base: object, table: Mapping[str, Any], derived: frozenset[str]) -> list[str]:
    """Return the dotted keys of a table that the tree does not have."""
    known = flatten(to_table(_with_lengths(base, table), derived))
    return [key for key in flatten(table) if key not in known]


def _check_keys(keys: Iterable[str], base: object, derived: frozenset[str], where: str) -> None:
    known = flatten(to_table(base, derived))
    for key in keys:
        if key in known:
            continue
        if key in derived:
            raise UserError(f"key {key}{where} cannot be set: it follows from other keys")
        other = other_key("train", key, in_file=where != "")
        if other is not None:
            raise UserError(
                f"there is no {key}{where}: write {other}" if where else f"there is no --{key}: write {other}"
            )
        inner = next((name for name in known if name.startswith(f"{key}.")), None)
        if inner is not None:
            raise UserError(f"{key}{where} has no value of its own, but keys such as {inner}")
        entries = re.split(r"\.\d+(?:\.|$)", key)[0]
        if reduce(lambda tree, name: getattr(tree, name, None), entries.split("."), base) == ():
            raise UserError(f"{key}{where} has no entry to change: write [[{entries}]] into a recipe first")
        close = nearest(key, known)
        hint = ": prolip train --help-all lists all" if close is None else f", did you mean {close}"
        raise UserError(f"unknown key {key}{where}{hint}")


def to_table(tree: Any, derived: frozenset[str], prefix: str = "") -> dict[str, Any]:
    """Return a tree as nested dicts, lists and plain values, without the derived keys. None becomes "None" for tyro."""
    table: dict[str, Any] = {}
    for item in dataclasses.fields(tree):
        value, key = getattr(tree, item.name), prefix + item.name
        if key in derived:
            continue
        if dataclasses.is_dataclass(value):
            table[item.name] = to_table(value, derived, f"{key}.")
        elif value == () and _nests(type(tree), item.name):
            continue  # there is no flag for an empty tuple of dataclasses
        elif isinstance(value, tuple):
            table[item.name] = [to_table(v, derived) if dataclasses.is_dataclass(v) else v for v in value]
        else:
            table[item.name] = "None" if value is None else str(value) if isinstance(value, Path) else value
    return table


def _nests(kind: type, name: str) -> bool:
    """Whether a field is a tuple of dataclasses."""
    return any(map(dataclasses.is_dataclass, typing.get_args(typing.get_type_hints(kind)[name])))


def to_toml(tree: object, *, derived: frozenset[str]) -> str:
    """Write a tree as TOML that `parse` reads back as an equal tree, but for passwords and signatures in addresses."""
    return "\n".join(_toml_lines(to_table(tree, derived), "")) + "\n"


def _toml_lines(table: Mapping[str, Any], path: str) -> Iterator[str]:
    nested = {key: value for key, value in table.items() if _nested(value) is not None}
    for key, value in table.items():
        if key not in nested:
            yield f"{key} = {_toml_value(value)}"
    for key, value in nested.items():
        header, items = (f"[{path}{key}]", [value]) if isinstance(value, dict) else (f"[[{path}{key}]]", value)
        for item in items:
            yield ""
            yield header
            yield from _toml_lines(item, f"{path}{key}.")


def _toml_value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # TOML has inf, -inf and nan
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    text = str(value)
    return json.dumps(without_secrets(text) if "://" in text else text, ensure_ascii=False)
