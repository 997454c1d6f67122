"""What tyro says, in this program's words: a help text is one paragraph, a wrong word one sentence."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, TextIO, cast

import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from prolip.errors import UserError
from prolip.other_words import nearest

HelpText = str | Callable[[], str | None] | None

_ONE_LINE = 100_000
"""Columns of a terminal in which tyro breaks no line, and so no path."""
_REWORDED: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"Missing value for argument '(.+)'\. Expected 1 values\.", r"\1 needs a value"),
    (r"Missing value for argument '(.+)'\. Expected (.+) values\.", r"\1 needs \2 values"),
    (
        r"invalid choice (.+) for argument '(.+)'\. Expected one of \((.+?),?\)\.",
        lambda found: f"{found[2]} is {found[1]}: it must be one of {', '.join(sorted(found[3].split(', ')))}",
    ),
    (r"Error parsing (.+?): invalid literal for int\(\) with base 10: (.+)", r"\1 is \2: it must be a whole number"),
    (r"Error parsing (.+?): could not convert string to float: (.+)", r"\1 is \2: it must be a number"),
    (
        r"Error parsing (.+?): no type matching \{None\}\|(INT|FLOAT) could be instantiated from \[(.+)\]\.",
        lambda found: f"{found[1]} is {found[3]}: it must be a {'whole ' if found[2] == 'INT' else ''}number or None",
    ),
    (
        r"Error parsing (.+?): Could not find valid parse for arguments: \[(.+)\]",
        r"\1 is \2: a value has the wrong type",
    ),
)
"""What tyro says, and what is said here. tyro lists choices in another order in each process."""


class _RejectedError(Exception):
    """Carries a UserError through tyro, which puts the text of every ValueError into a frame."""


def paragraphs() -> ConstructorRegistry:
    """Rules for `tyro.cli(..., registry=)` within `one_sentence`: the docstring under a field is one paragraph.

    tyro joins a line with the one above if it begins with a letter. Lines under a field begin with their indent, so
    tyro breaks the text where the source does, in mid-sentence.
    """
    registry = ConstructorRegistry()
    asking = False

    @registry.struct_rule
    def joined(info: StructTypeInfo) -> StructConstructorSpec | None:
        """What tyro's own rules say, with other help texts; None while they are asked, so that they answer."""
        nonlocal asking
        if asking:
            return None
        asking = True
        try:
            found = ConstructorRegistry.get_struct_spec(info)
        finally:
            asking = False
        if not isinstance(found, StructConstructorSpec):
            return None
        fields = [_reworded_field(field) for field in found.fields]
        make = _unframed(found.instantiate) if dataclasses.is_dataclass(info.type) else found.instantiate
        return dataclasses.replace(found, fields=tuple(fields), instantiate=make)

    return registry


def _reworded_field(field: StructFieldSpec) -> StructFieldSpec:
    """The field with its help text in one line, and a word for an empty default, after which tyro prints nothing."""
    kind: Any = field.type
    if field.default in ((), []):
        kind = Annotated[kind, tyro.conf.arg(help_behavior_hint="(default: none)")]
    return dataclasses.replace(field, type=kind, helptext=_one_line(field.helptext))


def _unframed(instantiate: Callable[..., Any]) -> Callable[..., Any]:
    def unframed(*values: Any, **named: Any) -> Any:
        try:
            return instantiate(*values, **named)
        except UserError as error:
            raise _RejectedError(error) from error

    unframed.__doc__ = instantiate.__doc__  # the text above the options
    return unframed


def _one_line(text: HelpText) -> HelpText:
    """The text in one line. tyro's later versions make texts when they are shown, and so does this."""
    if callable(text):
        return lambda: _joined(text())
    return _joined(text)


def _joined(text: str | None) -> str | None:
    return None if text is None else " ".join(text.split())


class _Wrapped:
    """The standard output, with long lines of text broken at the terminal's width.

    tyro breaks the lines within its frames, but not the text above them.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, text: str) -> int:
        return self._out.write("\n".join(map(self._wrapped, text.split("\n"))))

    def _wrapped(self, line: str) -> str:
        if not line[:1].isalpha():
            return line
        width = shutil.get_terminal_size().columns
        return textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._out, name)  # whether it is a terminal, its encoding


@contextlib.contextmanager
def one_sentence(words: Sequence[str], prog: str) -> Iterator[None]:
    """Turn what tyro says about wrong words, in a frame of several lines, into one sentence.

    Args:
        words: the words that the block parses.
        prog: the command, whose help the sentence names.

    Raises:
        UserError: a word is wrong, or a value breaks a rule of its dataclass.
    """
    complaint = io.StringIO()
    try:
        shown = contextlib.redirect_stdout(cast(TextIO, _Wrapped(sys.stdout)))
        with _terminal(shows_help=bool({"-h", "--help"} & set(words))), contextlib.redirect_stderr(complaint), shown:
            yield
    except _RejectedError as rejected:
        (error,) = rejected.args
        raise error from None
    except SystemExit as stop:
        if not stop.code:
            raise  # the help is printed
        raise UserError(_sentence(complaint.getvalue(), prog)) from None


@contextlib.contextmanager
def _terminal(*, shows_help: bool) -> Iterator[None]:
    """Keep tyro from breaking lines and from colours, unless it shows a help; then NO_COLOR decides, as everywhere."""
    changed = {}
    if not shows_help:
        changed = {"COLUMNS": str(_ONE_LINE), "TERM": "dumb"}
    elif os.environ.get("NO_COLOR"):
        changed = {"TERM": "dumb"}
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _sentence(framed: str, prog: str) -> str:
    """Return tyro's complaint as a sentence: in its own words, without the frame, if they are not known here."""
    parts: dict[str, list[str]] = {}
    for part in _parts(framed):
        title, _, words = part[0].partition("options: ")
        parts[title.strip()] = words.split(", ") if words else [row for row in part[1:] if re.match(r"    \S", row)]
    missing = next((_names(rows) for title, rows in parts.items() if title.startswith("Missing from")), [])
    unknown = next((rows or [""] for title, rows in parts.items() if title.startswith("Unrecognized")), [])
    if missing or unknown:
        known = [*missing, *_names(parts.get("Perhaps you meant:", []))]
        wrong = [*_absent(missing), *_unknown([row.strip() for row in unknown], known)]
        return f"{' and '.join(wrong)}: {prog} --help describes the options"
    text = " ".join(row.strip() for row in next(_parts(framed), []))
    for pattern, reworded in _REWORDED:
        text = re.sub(pattern, reworded, text)
    return text


def _parts(framed: str) -> Iterator[list[str]]:
    """Yield the rows between the rules of a frame, without its left and right side. Frames in ASCII have no sides."""
    part: list[str] = []
    for line in [*framed.splitlines()[1:], ""]:
        row = re.sub(r"^(│ |  )", "", line).rstrip("│ ")
        if row.strip("─-╰╯ "):
            part.append(row)
        elif part:
            yield part
            part = []


def _names(rows: Sequence[str]) -> list[str]:
    """Return the first word of each row: an option, without the type of its value."""
    return [row.split()[0] for row in rows]


def _absent(missing: Sequence[str]) -> Iterator[str]:
    if missing:
        yield f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"


def _unknown(words: Sequence[str], known: Sequence[str]) -> Iterator[str]:
    """Say what is wrong with words that tyro doesn't know: options that don't exist, or words that follow none."""
    options = [word for word in words if word.startswith("-")]
    for option in options:
        close = nearest(option, known)
        yield f"there is no {option}" + (f" (did you mean {close}?)" if close is not None else "")
    if words and not options:
        yield f"{', '.join(map(repr, words))} belongs to no option"
