"""Repeated flags: those of a list append, all others are an error. One rule for all commands."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, get_args, get_type_hints

from prolip.errors import UserError

_FLAG = re.compile(r"--\w")


def list_flags(options: Any) -> set[str]:
    """Names of a dataclass's or function's options with several values, also inside dataclasses."""
    lists: set[str] = set()
    for name, kind in get_type_hints(options).items():
        inner = get_args(kind)
        if Ellipsis in inner:
            lists.add(name)
        for part in (kind, *inner):
            if is_dataclass(part):
                lists |= list_flags(part)
    return lists


def gather(
    arguments: Sequence[str], lists: Collection[str], short: Mapping[str, str] | None = None
) -> dict[str, list[str]]:
    """The words of each flag, itself first, and under "" the words before the first flag.

    Args:
        arguments: words of a command line.
        lists: flags that may be repeated, by the last part of their names; their words are joined.
        short: short names of flags, and their full ones.
    """
    words: list[str] = []
    words_of = {"": words}
    for word in arguments:
        if not _FLAG.match(word):
            words.append(word)
            continue
        flag, *value = word.split("=", 1)
        name = flag[2:].replace("-", "_")
        name = (short or {}).get(name, name)
        if name not in words_of:
            words = words_of[name] = [word]
        elif name.rpartition(".")[2] in lists:
            words = words_of[name]
            words += value
        else:
            raise UserError(name, "must be given once")
    return words_of
