"""Convert dataclass trees to JSON and back, and check types on the way back. NaN is written as null."""

import dataclasses
import json
import math
import types
import typing
from typing import Any, TypeVar

from prolip.errors import UserError

T = TypeVar("T")


def to_json(result: Any) -> str:
    """JSON text of a dataclass tree of numbers, strings, lists and dicts, indented by two spaces."""
    return json.dumps(_plain(dataclasses.asdict(result)), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(kind: type[T], text: str) -> T:
    """Read a dataclass tree of type `kind` from the text that `to_json` wrote.

    Raises:
        UserError: a field is missing, unknown or of the wrong type; the message names its path.
    """
    return typing.cast(T, _typed(kind, json.loads(text), kind.__name__))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _typed(kind: Any, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _typed_dataclass(kind, value, path)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):  # only `X | None` occurs
        inner = next(argument for argument in arguments if argument is not types.NoneType)
        return None if value is None else _typed(inner, value, path)
    if origin is list and isinstance(value, list):
        return [_typed(arguments[0], item, f"{path}[{i}]") for i, item in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {key: _typed(arguments[1], item, f"{path}.{key}") for key, item in value.items()}
    if kind is float and (value is None or type(value) in (int, float)):
        return math.nan if value is None else float(value)
    fits = value in arguments if origin is typing.Literal else kind in (bool, int, str) and type(value) is kind
    if not fits:
        raise UserError(f"{path}: {value!r} is not {kind}")
    return value


def _typed_dataclass(kind: Any, value: Any, path: str) -> Any:
    if not isinstance(value, dict):
        raise UserError(f"{path}: {value!r} is not a table")
    hints = typing.get_type_hints(kind)
    names = {field.name for field in dataclasses.fields(kind)}
    if names != value.keys():
        raise UserError(f"{path}: missing {sorted(names - value.keys())}, unknown {sorted(value.keys() - names)}")
    return kind(**{name: _typed(hints[name], value[name], f"{path}.{name}") for name in names})
