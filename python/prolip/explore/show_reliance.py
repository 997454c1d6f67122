"""Render a `Reliance` as HTML: the answer, the label set, and both kinds of doubt."""

from __future__ import annotations

import math

from markupsafe import Markup

from prolip.explore.drawing import Head, bar, block, percent, sentence, table
from prolip.explore.reliance import Doubt, Reliance

UNUSUAL = 0.95
"""Share of the calibration's images that are nearer, from which an image is called unusual."""
_SHOWN = 10
"""Number of labels to show, unless the set has more."""


def relied_on(found: Reliance) -> str:
    """Render an image's label set, its answer, and its doubts."""
    parts = [_decided(found), _doubts(found)]
    if found.data is not None:
        parts.append(sentence(f"The guarantees hold for images like those of {found.data}, and for no others."))
    return "".join(parts)


def _decided(found: Reliance) -> str:
    """Render the answer and the label set, or why there are none, and the labels with their probabilities."""
    number = len(found.labels) if found.within is None else sum(found.within)
    count = min(len(found.labels), max(number, _SHOWN))
    rows = []
    for place in range(count):
        cells = [bar(percent(found.probabilities[place]), found.probabilities[place], "s0")]
        if found.within is not None:
            cells.append(Markup("in the set") if found.within[place] else Markup(""))
        rows.append((found.labels[place], cells))
    heads = [Head("label"), Head("probability", "if exactly one label is right")]
    if found.within is None:
        return block(f"{found.why_not} Probabilities have the model's own scale.", table(heads, rows))
    rest = "" if count == len(found.labels) else f" The table shows {count} of {len(found.labels)} labels."
    names = ", ".join(f"“{name}”" for name, inside in zip(found.labels, found.within, strict=True) if inside)
    sets = f"At least {percent(found.guarantee, 0)} of such sets contain the right label, on average."
    text = f"{_answer(found)} Label set: {names}. {sets}{rest}"
    return block(text, table([*heads, Head("label set", f"at {percent(found.guarantee, 0)}")], rows))


def _answer(found: Reliance) -> str:
    limit = percent(found.max_error, 0)
    if found.answer is not None:
        return f"Answer: “{found.answer}”. At most {limit} of the answers given are wrong, in 19 of 20 calibrations."
    if math.isinf(found.threshold):
        return f"Don't know: the calibration cannot promise that at most {limit} of the answers are wrong."
    return (
        f"Don't know: the largest probability is {percent(found.probabilities[0])}, and at most {limit} of the answers "
        f"are wrong only from {percent(found.threshold)} on."
    )


def _doubts(found: Reliance) -> str:
    rows = [("what the image leaves open", _doubt_cells("uncertainty", found.left_open, "more certain"))]
    text = "Two kinds of doubt. An uncertain image may mean many things; a far one is unlike what the model knows."
    if found.not_learned is None:
        text += " The distance from known images needs a calibration."
    else:
        rows.append(("what the model has not learned", _doubt_cells("distance", found.not_learned, "nearer")))
        if found.not_learned.share is not None and found.not_learned.share >= UNUSUAL:
            text += " This image is unlike the calibration's: no guarantee may hold for it."
    return block(text, table([Head("doubt"), Head("measure"), Head("among known images")], rows))


def _doubt_cells(name: str, doubt: Doubt, less: str) -> list[Markup]:
    """Return the cells of a doubt: its value, and the share of known images with less of it."""
    value = f"{name} {doubt.value:#.4g}"
    if doubt.share is None:
        return [Markup("{}").format(value), Markup("unknown: start with --shards")]
    compared = Markup("{}, compared with {}").format(value, doubt.of)
    return [compared, bar(f"{percent(doubt.share, 0)} are {less}", doubt.share, "s1")]
