"""One parser for TOML files and command-line flags over a tree of dataclasses.

A TOML file is flags written down: files are merged (later ones win), spelled as flags, followed by the real flags and
parsed by tyro. So a value is checked in one place, and an error names its dotted key wherever it came from.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
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

Tree = TypeVar("Tree")
Named = tuple[str, Mapping[str, Any]]
"""A TOML table and the name of its file."""


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The files that a command line starts with, and its flags."""
    first_flag = next((i for i, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    return list(arguments[:first_flag]), list(arguments[first_flag:])


def last_value(words: Sequence[str], key: str) -> str | None:
    """The value that the flags give a key; None when they don't."""
    value = None
    for word, following in pairwise([*words, ""]):
        if word == f"--{key}":
            value = following
        elif word.startswith(f"--{key}="):
            value = word.split("=", 1)[1]
    return value


def parse(base: Tree, tables: Sequence[Named], words: Sequence[str], *, derived: frozenset[str], prog: str) -> Tree:
    """`base` with the values of the tables and of the flags; later ones win.

    Args:
        base: the tree of defaults, dataclasses of dataclasses, plain values and tuples of either.
        tables: TOML tables with the names of their files.
        words: the flags.
        derived: dotted keys that can't be set.
        prog: the command, for the help text.

    Raises:
        ValueError: an unknown key or a value that doesn't parse; the message has the dotted key.
    """
    for name, table in tables:
        _check_keys(flat(table), _with_lengths(base, table), derived, f" in {name}")
    merged: dict[str, Any] = reduce(_merge, (table for _, table in tables), {})
    base = _with_lengths(base, merged)
    named = [word[2:].split("=")[0].replace("-", "_") for word in words if word.startswith("--")]
    _check_keys((key for key in named if key != "help"), base, derived, "")
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                type(base),
                args=[*_spell(merged), *words],
                default=base,
                prog=prog,
                use_underscores=True,
                config=(tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands),
            )
    except SystemExit as error:
        if not error.code:
            raise
        # tyro's framed complaint becomes the text of the error.
        lines = [line.strip("│ ") for line in complaint.getvalue().splitlines()]
        told = [line for line in lines if line and not re.match("[╭╰─]|For full helptext", line)]
        raise ValueError(" ".join(told)) from error


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`: tables are merged, everything else (lists too) is replaced."""
    merged = dict(below)
    for key, value in above.items():
        both_tables = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both_tables else value
    return merged


def _nested(value: object) -> dict[str, Any] | None:
    """A table, or a list of tables as a table of its numbered items; None for a plain value."""
    if isinstance(value, dict):
        return value
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return {str(i): item for i, item in enumerate(value)}
    return None


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The plain values of a table by dotted key; items of a list of tables are numbered."""
    values: dict[str, Any] = {}
    for key, value in table.items():
        inner = _nested(value)
        values |= {prefix + key: value} if inner is None else flat(inner, f"{prefix}{key}.")
    return values


def _spell(table: Mapping[str, Any]) -> Iterator[str]:
    for key, value in flat(table).items():
        if isinstance(value, list):
            yield f"--{key}"
            yield from map(str, value)
        else:
            yield f"--{key}={value}"


def _with_lengths(default: Any, table: Mapping[str, Any]) -> Any:
    """`default` with as many items in each tuple of dataclasses as the table has in its list."""
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


def _check_keys(keys: Iterable[str], base: object, derived: frozenset[str], where: str) -> None:
    known = flat(to_table(base, derived))
    for key in keys:
        if key in known:
            continue
        if key in derived:
            raise ValueError(f"key {key}{where} can't be set: it follows from other keys")
        close = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
        raise ValueError(f"unknown key {key}{where}, did you mean {close[0]}")


def to_table(tree: Any, derived: frozenset[str], prefix: str = "") -> dict[str, Any]:
    """A tree as nested dicts, lists and plain values, without the derived keys; None is spelled as tyro reads it."""
    table: dict[str, Any] = {}
    for item in dataclasses.fields(tree):
        value, key = getattr(tree, item.name), prefix + item.name
        if key in derived:
            continue
        if dataclasses.is_dataclass(value):
            table[item.name] = to_table(value, derived, f"{key}.")
        elif value == () and _nests(type(tree), item.name):
            continue  # no flag says that there are none
        elif isinstance(value, tuple):
            table[item.name] = [to_table(v, derived) if dataclasses.is_dataclass(v) else v for v in value]
        else:
            table[item.name] = "None" if value is None else str(value) if isinstance(value, Path) else value
    return table


def _nests(kind: type, name: str) -> bool:
    """Whether a field is a tuple of dataclasses."""
    return any(map(dataclasses.is_dataclass, typing.get_args(typing.get_type_hints(kind)[name])))


def to_toml(tree: object, *, derived: frozenset[str]) -> str:
    """A tree as TOML that `parse` reads back as an equal tree."""
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
        return str(value)  # inf, -inf and nan are TOML as they are
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    return json.dumps(str(value), ensure_ascii=False)
