"""Choose the samples with the best scores, and show both ends (`prolip data select`). N rows.

Exact in two passes, whatever N is. A score becomes a whole number in the same order, its *place value*. The first pass
counts their high bits, which finds the bin with the border. The second writes the rows below that bin, and those in it
with their low bits, to a temporary file. Then the border is known, and the chosen rows are copied from that file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import partial
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from prolip.calibration.config import NO_CSD
from prolip.data.selection import Chosen, read_selection, write_selection
from prolip.embeddings.config import By, Kind, SelectOptions
from prolip.embeddings.contact_sheet import SIDE, Cell, Row, contact_sheet
from prolip.embeddings.engine import Report, run_units
from prolip.embeddings.row_contents import Contents, fetch
from prolip.embeddings.search import described
from prolip.embeddings.storage import Block, Floats, Manifest, Part, complete_parts, paired_parts
from prolip.errors import check, check_at_least, printable
from prolip.files import check_writable, write_atomic
from prolip.folders import Folder
from prolip.gaussian import Gaussian, inclusion_score

_LOW = 15
"""Bits of a place value that the first pass does not count."""
_INSIDE, _BORDER = 1, 2
"""In the temporary file: a row before the border's bin, and the first of those in it."""
_ENDS: dict[By, tuple[str, str]] = {
    "image": ("the most certain images", "the least certain images"),
    "text": ("the most certain captions", "the least certain captions"),
    "inclusion": ("images that lie deepest inside their captions", "images that lie least inside their captions"),
    "csd": ("images nearest to their captions", "images farthest from their captions"),
}
_Place = tuple[int, int, int]
"""Place value of a row's score, number of the row's group, and number of the row in its part."""
Group = tuple[Part, ...]
"""A part of images or of captions, or one of both."""


def run_select(options: SelectOptions) -> list[str]:
    """Write the selection and the sheet, and return lines with the first and last samples.

    Raises:
        UserError: a rule is wrong, or keeps nothing, or the embeddings are not finished or lack what the scores need.
        DataError: a part cannot be read.
        OSError: a file cannot be written; see `check_writable`.
    """
    check_at_least(0, show=options.show)
    check(0 < options.keep_share <= 1, "keep_share", "must be above 0 and at most 1", options.keep_share)
    for file in (options.out, options.sheet):
        if file is not None and "://" not in str(file):
            check_writable(Path(file))
    manifest, groups = _groups(options)
    run = partial(run_units, groups, options=options.engine, name=lambda group: group[0].name, threads=options.threads)
    histogram = np.zeros(1 << 32 - _LOW, np.int64)
    first, last = list[_Place](), list[_Place]()
    for number, (bins, counts, *ends) in run(lambda report: partial(_count, options, report), verb="counted"):
        histogram[bins] += counts
        found = [[(value, number, index) for value, index in end] for end in ends]
        first = sorted([*first, *found[0]])[: options.show]
        last = sorted([*last, *found[1]], reverse=True)[: options.show]
    total = int(histogram.sum())
    # Exact arithmetic: 0.29 * 100 is 29, but the product of the floats is less.
    keep = min(
        math.floor(Fraction(str(options.keep_share)) * total),
        total if options.keep_count is None else options.keep_count,
    )
    check(keep >= 1, "embeddings", "must have samples that the rules keep", f"none of {options.embeddings}")
    histogram = histogram[::-1] if options.least else histogram
    border = int(np.searchsorted(histogram.cumsum(), keep))
    keep_there = keep - int(histogram[:border].sum())
    values = np.zeros(_BORDER + (1 << _LOW), np.int64)

    def candidates() -> Iterator[Chosen]:
        waiting, following = dict[int, Chosen](), 0
        for number, one in run(lambda report: partial(_pick, options, border, report), verb="chosen"):
            assert one.repeats is not None
            values[:] += np.bincount(one.repeats, minlength=len(values))
            waiting[number] = one
            while following in waiting:
                yield waiting.pop(following)
                following += 1

    with TemporaryDirectory() as folder:
        file = Path(folder, "candidates")
        write_selection(file, candidates())
        limit = _BORDER + int(np.searchsorted(values[_BORDER:].cumsum(), keep_there))
        ties = keep_there - int(values[_BORDER:limit].sum())
        count = write_selection(options.out, _before(read_selection(file), limit, ties))
    told = f"{options.out}: {count:,} of {total:,} samples chosen"
    return [told, *_show(options, manifest, groups, total, first, last)]


def _groups(options: SelectOptions) -> tuple[Manifest, Sequence[Group]]:
    """Return the parts that are scored together: of images, of captions, or pairs of both."""
    folder, by = Folder(options.embeddings), options.by
    manifest = Manifest.read(folder)
    check(manifest.has_variances or by == "csd", "by", "must be csd for a model without variances", by)
    check(not manifest.epistemic or by not in {"inclusion", "csd"}, "by", f"must be image or text; {NO_CSD}", by)
    if by in {"image", "text"}:
        kind: Kind = "image" if by == "image" else "text"
        other = "text" if kind == "image" else "image"
        return manifest, [(part,) for part in complete_parts(folder, kind, instead=f"choose with --by {other}")[1]]
    return manifest, paired_parts(folder, log_var=by == "inclusion")


# ---- One part -------------------------------------------------------------------------------------------------------


def _count(options: SelectOptions, report: Report, group: Group) -> tuple[Any, ...]:
    """Return bins and their numbers of rows, and place values and indices of the first and last rows."""
    indices, _, values = _within(options, report, group)
    codes = np.sort(values.astype(np.uint64) << 32 | indices.astype(np.uint64))
    bins, counts = np.unique(codes >> (32 + _LOW), return_counts=True)
    return (
        bins,
        counts,
        *([divmod(code, 1 << 32) for code in end[: options.show].tolist()] for end in (codes, codes[::-1])),
    )


def _pick(options: SelectOptions, border: int, report: Report, group: Group) -> Chosen:
    """Return the rows up to the bin `border`. Their `repeats` say where: _INSIDE, or _BORDER and their low bits."""
    _, rows, values = _within(options, report, group)
    values = ~values if options.least else values
    near = values >> _LOW <= border
    values = values[near]
    found = np.where(values >> _LOW < border, _INSIDE, _BORDER + values % (1 << _LOW)).astype(np.uint16)
    notes = group[0].notes
    return Chosen(notes.source, notes.stamp, rows[near], found)


def _before(candidates: Iterator[Chosen], limit: int, ties: int) -> Iterator[Chosen]:
    """Yield the rows below `limit`, and the first `ties` rows at it."""
    for source, parts in groupby(candidates, key=lambda one: one.source):
        rows = []
        for one in parts:
            assert one.repeats is not None
            kept = one.repeats < limit
            kept[tied := np.flatnonzero(one.repeats == limit)[:ties]] = True
            ties -= len(tied)
            rows.append(one.rows[kept])
        yield Chosen(source, one.stamp, np.concatenate(rows))


def _within(
    options: SelectOptions, report: Report, group: Group
) -> tuple[NDArray[np.intp], NDArray[np.uint32], NDArray[Any]]:
    """Return indices, places in the source and place values of the rows whose scores are between the limits.

    The best score has the smallest place value.
    """
    rows, scores = _scores(group, options.by)
    report(len(rows))
    within = (scores >= np.float32(options.min_score)) & (scores <= np.float32(options.max_score))
    bits = (scores[within] + np.float32(0)).view(np.uint32)  # 0 for -0
    values = bits ^ ((bits >> 31) * np.uint32(0x7FFFFFFF) + np.uint32(1 << 31))
    return np.flatnonzero(within), rows[within], ~values if options.by == "inclusion" else values


def _score(value: int, by: By) -> float:
    """The score of a place value."""
    value = 0xFFFFFFFF - value if by == "inclusion" else value
    bits = value - (1 << 31) if value >> 31 else 0xFFFFFFFF - value
    return float(np.uint32(bits).view(np.float32))


def _scores(group: Group, by: By) -> tuple[NDArray[np.uint32], Floats]:
    """Return places in the source, and scores."""
    if by in {"image", "text"}:
        return group[0].total_var()
    rows, scores = [np.zeros(0, np.uint32)], [np.zeros(0, np.float32)]
    for image, text in zip(*(part.blocks(log_var=by == "inclusion") for part in group), strict=True):
        rows.append(image.rows)
        if by == "inclusion":
            scores.append(inclusion_score(_gaussian(image), _gaussian(text)).sum(1).numpy())
        else:
            scores.append(np.square(image.mean - text.mean).sum(1) + image.total_var + text.total_var)
    return np.concatenate(rows), np.concatenate(scores)


def _gaussian(block: Block) -> Gaussian:
    assert block.log_var is not None
    return Gaussian(torch.tensor(block.mean), torch.tensor(block.log_var))


# ---- What is shown --------------------------------------------------------------------------------------------------


def _show(
    options: SelectOptions, manifest: Manifest, groups: Sequence[Group], total: int, *ends: list[_Place]
) -> list[str]:
    """Write the sheet, and return the lines with both ends."""
    rows = {place: groups[place[1]][0].row(place[2]) for end in ends for place in end}
    names = {place: (row["source"], row["key"]) for place, row in rows.items()}
    has_sheet, caption_key = options.sheet is not None, manifest.settings.caption_key
    contents = fetch(sorted(names.values()), SIDE if has_sheet else None, options.store, caption_key, remote=has_sheet)
    lines, sheet = list[str](), []
    for title, end, ranks in zip(_ENDS[options.by], ends, (range(1, total + 1), range(total, 0, -1)), strict=True):
        lines += ["", f"{title}:"] if end else []
        cells = []
        for place, rank in zip(end, ranks, strict=False):
            (source, key), score = names[place], _score(place[0], options.by)
            found = contents.get(names[place], Contents(None, None))
            told = described(source, found.file, found.caption)
            lines.append(f"  {rank:>9,}  {score:12.5f}  {printable(key)}  {told}")
            cells.append(Cell(key, found, [f"rank {rank:,}, score {score:.5f}", source]))
        sheet.append(Row(title, None, cells))
    if options.sheet is not None:
        write_atomic(options.sheet, contact_sheet(f"{Path(options.embeddings).name}: by {options.by}", sheet))
    return lines
