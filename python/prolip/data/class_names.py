"""Names of classes from any source: spaces, "_" and "-" are the same."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_LISTED = 20


def class_text(name: str) -> str:
    """As the model reads it: single spaces for "_" and "-", but for a "-" at the start."""
    return " ".join(re.sub("_|(?<!^)-", " ", name).split())


def class_places(labels: Iterable[str | int], names: Sequence[str], *, numbers: bool = False) -> list[int]:
    """Places in `names`, -1 for none. The same spelling comes before the same text.

    With `numbers` a label may also be a place, from 0.
    """
    texts = {class_text(name): place for place, name in enumerate(names)}
    exact = {str(place): place for place in range(len(names) if numbers else 0)}
    exact |= {name: place for place, name in enumerate(names)}
    return [exact.get(str(label), texts.get(class_text(str(label)), -1)) for label in labels]


def listed(names: Sequence[str]) -> str:
    """For a message; of many, the first ones."""
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")
