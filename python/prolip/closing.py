"""The last line of every command: what it wrote, and what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path


def closing(then: str, wrote: Iterable[str | Path | None] = ()) -> str:
    """Return the last line of a command's output.

    Args:
        then: what to do next, such as a command.
        wrote: files and folders that were written; None entries are left out.
    """
    names = [str(name) for name in wrote if name is not None]
    return f"wrote {', '.join(names)}; next: {then}" if names else f"next: {then}"


def command(*words: str | Path) -> str:
    """Return a prolip command, ready to type, with quotes where a shell needs them."""
    return " ".join(
        ["prolip", *(str(word) if _is_placeholder(str(word)) else shlex.quote(str(word)) for word in words)]
    )


def _is_placeholder(word: str) -> bool:
    return word.isupper() or word == "..."
