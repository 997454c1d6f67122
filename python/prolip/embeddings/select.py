"""Choose the samples with the best scores, and show both ends (`prolip data select`). N rows.

Scores and places of all rows are in temporary files that are mapped into memory, so that the system can drop their
pages: 12 bytes a row of disk.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import partial
from itertools import groupby, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from prolip.embeddings.config import By, Kind, SelectOptions
from prolip.embeddings.contact_sheet import SIDE, Cell, Row, contact_sheet
from prolip.embeddings.originals import Original, fetch
from prolip.embeddings.search import described
from prolip.embeddings.storage import Block, Floats, Manifest, Part, complete_parts, paired_parts, sample_rows
from prolip.embeddings.threads_or_ray import Report, run_units
from prolip.errors import check, check_at_least, printable
from prolip.gaussian import Gaussian, inclusion_score
from prolip.metrics.pair_posteriors import Pairs, pair_posteriors
from prolip.store.atomic_writes import check_writable, write_atomic
from prolip.store.folder import Folder, check_out
from prolip.store.selection import Chosen, write_selection

_ENDS: dict[By, tuple[str, str]] = {
    "image": ("the most certain images", "the least certain images"),
    "text": ("the most certain captions", "the least certain captions"),
    "inclusion": ("images that lie deepest inside their captions", "images that lie least inside their captions"),
    "csd": ("images nearest to their captions", "images farthest from their captions"),
    "posterior": ("the likeliest pairs", "pairs that others suit better"),
}
_Place = tuple[float, int, int]
"""Key of a row, number of its group, and number of the row in its part. A key is small if the score is good."""
Group = tuple[Part, ...]
"""A part of images or of captions, or one of both."""
_LARGEST_FIRST = {"inclusion", "posterior"}
_OTHER_PAIRS = 4096


class _Others(NamedTuple):
    """What a pair's posterior depends on beside the pair."""

    pairs: Pairs
    starts: dict[str, int]
    """Number of the first row of each part of images."""
    total: int
    logit_scale: float


def run_select(options: SelectOptions) -> list[str]:
    """Write the selection and the sheet, and return lines with the first and last samples.

    Raises:
        UserError: a rule is wrong, or keeps nothing, or the embeddings are not finished or lack what the scores need.
        DataError: a part cannot be read.
        OSError: a file cannot be written; see `check_writable`.
    """
    check_at_least(0, show=options.show)
    check(0 < options.keep_share <= 1, "keep_share", "must be above 0 and at most 1", options.keep_share)
    if options.sheet is not None:
        check_writable(options.sheet)
    check_out(options.out)
    with TemporaryDirectory() as folder:
        manifest, groups = _groups(options)
        return _select(options, manifest, groups, Path(folder))


def _select(options: SelectOptions, manifest: Manifest, groups: Sequence[Group], folder: Path) -> list[str]:
    starts = np.cumsum([0, *(group[0].count or 0 for group in groups)])

    def mapped(name: str, dtype: type[np.generic]) -> NDArray[Any]:
        return np.memmap(folder / name, dtype, "w+", shape=int(starts[-1]) + 1)[:-1]  # a map cannot be empty

    others = _others(manifest, groups) if options.by == "posterior" else None
    keys, places, sign = mapped("keys", np.float32), mapped("places", np.uint32), -1 if options.least else 1
    sources = [("", "")] * len(groups)
    first, last, total = list[_Place](), list[_Place](), 0
    for number, (source, rows, found, *ends) in run_units(
        groups,
        lambda report: partial(_score, options, others, report),
        options.engine,
        verb="scored",
        name=lambda group: group[0].name,
        threads=options.threads,
    ):
        here = slice(starts[number], starts[number + 1])
        sources[number], places[here], keys[here] = source, rows, sign * found
        total += len(found) - int(np.count_nonzero(np.isnan(found)))
        best, worst = ([(float(found[index]), number, int(index)) for index in end] for end in ends)
        first = sorted([*first, *best])[: options.show]
        last = sorted([*last, *worst], reverse=True)[: options.show]
    # Exact arithmetic: 0.29 * 100 is 29, but the product of the floats is less.
    keep = min(
        math.floor(Fraction(str(options.keep_share)) * total),
        total if options.keep_count is None else options.keep_count,
    )
    check(keep >= 1, "embeddings", "must have samples that the rules keep", f"none of {options.embeddings}")
    ordered = mapped("ordered", np.float32)
    ordered[:] = keys
    ordered.partition(keep - 1)  # NaN last
    limit = ordered[keep - 1]

    def chosen() -> Iterator[Chosen]:
        blocks = (keys[start:end] for start, end in pairwise(starts))
        ties = keep - sum(int(np.count_nonzero(block < limit)) for block in blocks)
        for source, same in groupby(range(len(groups)), sources.__getitem__):
            begin, *_, end = [*same] * 2
            here = slice(starts[begin], starts[end + 1])
            kept = np.array(keys[here] < limit)
            kept[tied := np.flatnonzero(keys[here] == limit)[:ties]] = True
            ties -= len(tied)
            yield Chosen(*source, np.array(places[here])[kept])

    told = f"{options.out}: {write_selection(options.out, chosen()):,} of {total:,} samples chosen"
    return [told, *_show(options, manifest, groups, total, first, last)]


def _groups(options: SelectOptions) -> tuple[Manifest, Sequence[Group]]:
    """The parts that are scored together: of images, of captions, or pairs of both."""
    folder, by = Folder(options.embeddings), options.by
    manifest = Manifest.read(folder)
    can = manifest.has_variances or by in {"csd", "posterior"}
    check(can, "by", "must be csd or posterior for a model without variances", by)
    if by in {"image", "text"}:
        kind: Kind = "image" if by == "image" else "text"
        other = "text" if kind == "image" else "image"
        return manifest, [(part,) for part in complete_parts(folder, kind, instead=f"choose with --by {other}")[1]]
    return manifest, paired_parts(folder, log_var=by == "inclusion")


# ---- One part -------------------------------------------------------------------------------------------------------


def _score(options: SelectOptions, others: _Others | None, report: Report, group: Group) -> tuple[Any, ...]:
    """Source and stamp, places in the source, keys, and indices of the first and the last rows.

    The key of a row whose score is outside the limits is NaN.
    """
    rows, scores = _scores(group, options.by, others)
    report(len(rows))
    within = (scores >= np.float32(options.min_score)) & (scores <= np.float32(options.max_score))
    scores = scores + np.float32(0)  # 0 for -0
    keys = np.where(within, -scores if options.by in _LARGEST_FIRST else scores, np.float32(np.nan))
    order = keys.argsort(kind="stable")[: np.count_nonzero(within)]
    notes = group[0].notes
    return (notes.source, notes.stamp), rows, keys, order[: options.show], order[::-1][: options.show]


def _scores(group: Group, by: By, others: _Others | None) -> tuple[NDArray[np.uint32], Floats]:
    """Places in the source, and scores."""
    if by in {"image", "text"}:
        return group[0].total_var()
    rows, scores = [np.zeros(0, np.uint32)], [np.zeros(0, np.float32)]
    for image, text in zip(*(part.blocks(log_var=by == "inclusion") for part in group), strict=True):
        rows.append(image.rows)
        if by == "inclusion":
            scores.append(inclusion_score(_gaussian(image), _gaussian(text)).sum(1).numpy())
        elif others:
            numbers = others.starts[group[0].name] + image.start + torch.arange(len(image.rows))
            values = (image.mean, text.mean, image.total_var, text.total_var)
            pairs = Pairs(numbers, *map(torch.tensor, values))
            scores.append(pair_posteriors(pairs, others.pairs, others.total, others.logit_scale).numpy())
        else:
            scores.append(np.square(image.mean - text.mean).sum(1) + image.total_var + text.total_var)
    return np.concatenate(rows), np.concatenate(scores)


def _others(manifest: Manifest, groups: Sequence[Group]) -> _Others:
    counts = [group[0].count or 0 for group in groups]
    starts, total = np.cumsum([0, *counts]).tolist(), sum(counts)
    size = min(total, _OTHER_PAIRS)
    numbers = torch.empty(size, dtype=torch.int64)
    means, variances = torch.empty(2, size, manifest.dim), torch.empty(2, size)
    for parts, mean, variance in zip(zip(*groups, strict=True), means, variances, strict=True):
        for _, some in sample_rows(parts, size):
            numbers[some.places], variance[some.places] = torch.tensor(some.numbers), torch.tensor(some.total_var)
            mean[some.places] = torch.tensor(some.mean)
    firsts = {group[0].name: start for group, start in zip(groups, starts, strict=False)}
    return _Others(Pairs(numbers, *means, *variances), firsts, total, manifest.logit_scale)


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
            (source, key), score = names[place], -place[0] if options.by in _LARGEST_FIRST else place[0]
            found = contents.get(names[place], Original(None, None))
            told = described(source, found.file, found.caption)
            lines.append(f"  {rank:>9,}  {score:12.5f}  {printable(key)}  {told}")
            cells.append(Cell(key, found, [f"rank {rank:,}, score {score:.5f}", source]))
        sheet.append(Row(title, None, cells))
    if options.sheet is not None:
        write_atomic(options.sheet, contact_sheet(f"{Path(options.embeddings).name}: by {options.by}", sheet))
    return lines
