"""The errors that a user can cause. The command line prints them in one line; others keep their traceback."""

import json
import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Self, get_args

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters, line separators, and the marks that reverse the direction of writing."""


def printable(text: str, *, lines: bool = False) -> str:
    """Escape control characters as in JSON, so that names in data cannot add lines or control a terminal.

    With `lines` the text may have several lines.
    """
    if lines:
        return "\n".join(map(printable, text.split("\n")))
    return _CONTROL.sub(lambda found: json.dumps(found[0])[1:-1], text)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), lines=True)


def log_to_terminal(level: int) -> None:
    """To standard error as they are, but for control characters."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter())
    logging.basicConfig(level=level, handlers=[handler])


class UserError(ValueError):
    """Wrong input: `FIELD: RULE (got VALUE)`.

    Args:
        field: the option, dotted key or file that is wrong.
        rule: what it must be, or what is wrong with it.
        value: what was given; None if the message does not say.
    """

    lines = False
    """Whether the message may have several lines."""

    def __init__(self, field: object, rule: object, value: object = None) -> None:
        self.field, self.rule, self.value = str(field), str(rule), value
        super().__init__(str(self))  # tyro prints the first argument

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.field, self.rule, self.value), self.__dict__

    def within(self, prefix: str) -> Self:
        """With `prefix` before its field, such as "data."."""
        return type(self)(f"{prefix}{self.field}", self.rule, self.value)

    def __str__(self) -> str:
        given = "" if self.value is None else f" (got {self.value})"
        return printable(f"{self.field}: {self.rule}{given}", lines=self.lines)


def check(condition: object, field: object, rule: object, value: object = None) -> None:
    """Raise a `UserError` unless the condition holds."""
    if not condition:
        raise UserError(field, rule, value)


def suggestion(word: str, known: Iterable[str]) -> str:
    """What may have been meant by an unknown word, or all that is known."""
    names = list(known)
    close = get_close_matches(word, names)
    return f"did you mean {', '.join(close)}?" if close else f"known are {', '.join(names)}"


def check_choice(name: str, value: object, choices: object) -> None:
    """Check that a value is one of a `Literal`."""
    check(value in get_args(choices), name, f"must be one of {', '.join(get_args(choices))}", repr(value))


def check_at_least(minimum: int, **values: float) -> None:
    """The keywords are the names for errors."""
    for name, value in values.items():
        check(value >= minimum, name, f"must be at least {minimum}", value)


def check_seed(name: str, seed: int) -> None:
    """At most 64 bits, which all generators take."""
    check(0 <= seed < 2**64, name, "must be from 0 to 2^64 - 1", seed)


@contextmanager
def fields_within(prefix: str) -> Iterator[None]:
    """Prefix the field of a `UserError` that is raised within."""
    try:
        yield
    except UserError as error:
        raise error.within(prefix) from error


class NoSampleError(UserError):
    """The shards are intact, but hold no sample."""


class DiskFullError(UserError):
    """A file does not fit on its disk, into a quota, or below a limit. The message names it and the bytes free."""


class DataError(Exception):
    """Data that cannot be used: a damaged shard, an image that cannot be decoded, too many bad samples.

    Args:
        reason: what is wrong.
        shard: the shard, or another source.
        key: the sample's.
        member: extension of its member, such as json.
    """

    def __init__(
        self, reason: object, shard: str | None = None, key: str | None = None, member: str | None = None
    ) -> None:
        self.reason, self.shard, self.key, self.member = str(reason), shard, key, member
        super().__init__(self.reason, shard, key, member)  # what pickle passes

    def within(self, source: str) -> Self:
        """With `source` before its shard."""
        shard = source if self.shard is None else f"{source}: {self.shard}"
        return type(self)(self.reason, shard, self.key, self.member)

    def __str__(self) -> str:
        sample = None if self.key is None else f"sample {self.key}"
        places = [place for place in (self.shard, sample, self.member) if place is not None]
        return printable(": ".join([*places, self.reason]))


def of_os_error(error: OSError) -> UserError:
    """With the file as its field."""
    if isinstance(error, FileExistsError | NotADirectoryError) and isinstance(error.filename, str):
        path = Path(error.filename)
        for file in (path, *path.parents):
            if file.is_file():
                return UserError(file, "must be a folder", "a file")
    if isinstance(error, IsADirectoryError):
        return UserError(error.filename, "must be a file", "a folder")
    return UserError(error.filename or "file", (error.strerror or str(error)).lower())


def sentence(error: Exception) -> str:
    """In one line; for a failed file operation, the path and the reason."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        return str(of_os_error(error))
    return str(error)
