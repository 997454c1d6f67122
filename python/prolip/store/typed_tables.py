"""Trees of dataclasses from plain tables, checked, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from prolip.errors import UserError, check

T = TypeVar("T")
DERIVED = {"derived": True}
"""Of a dataclass field that a run derives from other settings: it cannot be set and is not saved."""
OPERATIONAL = {"operational": True}
"""Of a field, or of a table's fields, that may change when a run resumes. It does not change results."""
RESULTS = {"operational": False}
"""Of a field that may not, in an operational table."""


def decode(kind: type[T], table: Mapping[str, Any], *, from_text: bool = False, drop_unknown: bool = False) -> T:
    """A tree of dataclasses from plain values, as they come from JSON, TOML or flags.

    Args:
        kind: the dataclass.
        table: its fields.
        from_text: read text as the number or boolean that a field wants, and "None" as None, which TOML lacks.
        drop_unknown: leave unknown keys out.

    Raises:
        UserError: a field is missing, unknown, or has the wrong type, or breaks a rule of its dataclass.
    """
    tree: T = _decoded(kind, table, "", from_text, drop_unknown)
    return tree


def _decoded(kind: Any, value: Any, path: str, from_text: bool, drop_unknown: bool) -> Any:
    """Field by field, so that an error has the field's dotted key."""
    inner = get_args(kind)
    if get_origin(kind) in {list, tuple} and is_dataclass(inner[0]) and isinstance(value, list):
        items = (_decoded(inner[0], item, f"{path}.{i}", from_text, drop_unknown) for i, item in enumerate(value))
        return get_origin(kind)(items)
    tables: list[Any] = [one for one in (kind, *inner) if is_dataclass(one)]
    if not tables or (kind not in tables and not isinstance(value, Mapping)):
        try:
            given = _with_none(value) if from_text else value
            return msgspec.convert(given, kind, strict=not from_text, dec_hook=lambda hint, text: hint(text))
        except msgspec.ValidationError as error:
            raise UserError(path, error) from error
    (table,) = tables
    check(isinstance(value, Mapping), path or table.__name__, "must be a table", type(value).__name__)
    prefix, hints, found = path and f"{path}.", get_type_hints(table), {}
    for key, one in value.items():
        check(key in hints or drop_unknown, f"{prefix}{key}", "unknown key")
        if key in hints:
            found[key] = _decoded(hints[key], one, f"{prefix}{key}", from_text, drop_unknown)
    for field in fields(table):
        optional = field.default is not MISSING or field.default_factory is not MISSING
        check(optional or field.name in found, f"{prefix}{field.name}", "must be given")
    return table(**found)


def plain(tree: Any, without: Literal["", "derived", "operational"] = "", marked: bool = False) -> Any:
    """A tree of dataclasses as dicts, lists and plain values; a path becomes text.

    Args:
        tree: the dataclass, or a value in it.
        without: leave out fields with this in their metadata.
        marked: the value of `without` in fields that do not say it. Tables pass theirs on.
    """
    if is_dataclass(tree):
        table = {}
        for field in fields(tree):
            value, leave_out = getattr(tree, field.name), field.metadata.get(without, marked)
            if is_dataclass(value) or not leave_out:
                table[field.name] = plain(value, without, leave_out)
        return table
    if isinstance(tree, tuple | list):
        return [plain(item, without) for item in tree]
    return str(tree) if isinstance(tree, Path) else tree


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested table by dotted key. Items of a list of tables are numbered."""
    values: dict[str, Any] = {}
    for key, value in table.items():
        is_list = isinstance(value, list) and value and isinstance(value[0], dict)
        inner = {str(i): item for i, item in enumerate(value)} if is_list else value
        values |= flatten(inner, f"{prefix}{key}.") if isinstance(inner, dict) else {prefix + key: value}
    return values


def _with_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_none(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_none(item) for item in value]
    return None if value == "None" else value
