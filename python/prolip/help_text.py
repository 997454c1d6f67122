"""The help of a command: each option's text is one paragraph."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructTypeInfo

HelpText = str | Callable[[], str | None] | None


def paragraphs() -> ConstructorRegistry:
    """Rules for `tyro.cli(..., registry=)` that join the lines of the docstring under a field.

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
        fields = [dataclasses.replace(field, helptext=_one_line(field.helptext)) for field in found.fields]
        return dataclasses.replace(found, fields=tuple(fields))

    return registry


def _one_line(text: HelpText) -> HelpText:
    """The text in one line. tyro's later versions make texts when they are shown, and so does this."""
    if callable(text):
        return lambda: _joined(text())
    return _joined(text)


def _joined(text: str | None) -> str | None:
    return None if text is None else " ".join(text.split())
