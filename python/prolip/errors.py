"""The errors that a user can cause. The command line prints them in one line; anything else keeps its traceback."""

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self, get_args

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters, line separators, and the marks that reverse the direction of writing."""


def printable(text: str, *, lines: bool = False) -> str:
    """Return text with control characters escaped, so that names in data cannot add lines or control a terminal.

    They are escaped as in JSON, which so stays JSON.

    Args:
        text: the text.
        lines: whether it may have several lines.
    """
    if lines:
        return "\n".join(map(printable, text.split("\n")))
    return _CONTROL.sub(lambda found: json.dumps(found[0])[1:-1], text)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), lines=True)


def log_to_terminal(level: int) -> None:
    """Log messages to the standard error as they are, but for control characters."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter())
    logging.basicConfig(level=level, handlers=[handler])


class UserError(ValueError):
    """Wrong input. The message is `FIELD: RULE (got VALUE)`, where FIELD is an option, a dotted key or a file."""

    @property
    def field(self) -> str:
        """The option, key or file that is wrong."""
        return str(self).partition(": ")[0]

    def within(self, prefix: str) -> Self:
        """Return the same error with `prefix` before its field, such as "data."."""
        return type(self)(f"{prefix}{self}")

    def __str__(self) -> str:
        return printable(super().__str__())


def check_choice(name: str, value: object, choices: object) -> None:
    """Check that a value is one of a `Literal`.

    Raises:
        UserError: it is not.
    """
    if value not in get_args(choices):
        raise UserError(f"{name}: must be one of {', '.join(get_args(choices))} (got {value!r})")


def check_at_least(minimum: int, **values: float) -> None:
    """Check that no value is below `minimum`. The keywords are the names for errors.

    Raises:
        UserError: one is.
    """
    for name, value in values.items():
        if value < minimum:
            raise UserError(f"{name}: must be at least {minimum} (got {value})")


def check_seed(name: str, seed: int) -> None:
    """Check that a seed has at most 64 bits, which all generators take.

    Raises:
        UserError: it has more, or is negative.
    """
    if not 0 <= seed < 2**64:
        raise UserError(f"{name}: must be from 0 to 2^64 - 1 (got {seed})")


@contextmanager
def fields_within(prefix: str) -> Iterator[None]:
    """Prefix the field of a `UserError` that is raised in this context."""
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

    The message names the shard and the sample's key.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


def sentence(error: Exception) -> str:
    """Return an error as one line; for a failed file operation, the file's path and the reason."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        if isinstance(error, FileExistsError | NotADirectoryError) and isinstance(error.filename, str):
            path = Path(error.filename)
            for file in (path, *path.parents):
                if file.is_file():
                    return f"{file}: must be a folder (got a file)"
        if isinstance(error, IsADirectoryError):
            return f"{error.filename}: must be a file (got a folder)"
        return f"{error.filename}: {error.strerror.lower()}"
    return str(error)
