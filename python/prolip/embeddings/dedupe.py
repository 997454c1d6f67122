"""Find near-duplicates by their embeddings; of two, the more certain one stays (`prolip data dedupe`).

As in SemDeDup (arXiv:2303.09540), k-means divides the rows into clusters, and only rows of one cluster are compared.
Means are rounded to steps of 1/4000. Then a dot product is a sum of whole numbers below 2^24, which is exact in float32
in any order, so results depend neither on the workers nor on how rows are split. A cosine is off by some 0.0001.
N rows, D dimensions, K clusters.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prolip.embeddings.config import DedupeOptions
from prolip.embeddings.contact_sheet import SIDE, Cell, Row, contact_sheet
from prolip.embeddings.originals import Name, fetch
from prolip.embeddings.storage import Manifest, Part, complete_parts
from prolip.embeddings.threads_or_ray import Report, run_units
from prolip.errors import check, check_at_least
from prolip.store.atomic_writes import check_writable, write_atomic
from prolip.store.folder import Folder, check_out
from prolip.store.selection import Chosen, combine, read_selection, write_selection

Array = NDArray[Any]

STEPS = 4000
"""Steps of a rounded mean per unit: the largest round number with dot products below 2^24."""
_PER_CLUSTER = 10_000
"""Rows of a cluster by default, up to 10^8 rows."""
_SAMPLED = 1 << 26
"""Numbers from which k-means learns, D for a row."""
_SIDE = 2048
"""Rows that are compared with as many at once."""
_TOGETHER = 100_000
"""Rows that a unit of work has in memory, or those of one part."""
_SHOWN = 12
"""Maximum number of groups on the sheet, and of samples of a group."""
_MANY = "warning: more than a third go; --sheet FILE.html shows whether they are copies, or only of one class"


# ---- Clusters and copies --------------------------------------------------------------------------------------------


def k_means(rows: Tensor, num: int) -> Tensor:
    """Spherical k-means of rounded means [N, D]: rounded centres f32 [K, D], at most `num`."""
    centres = rows[:: len(rows) // num or 1][:num].float()
    for _ in range(10):
        sums = torch.zeros_like(centres).index_add_(0, nearest(rows, centres), rows.float())
        centres = (torch.nn.functional.normalize(sums) * STEPS).round()
    return centres


def nearest(rows: Tensor, centres: Tensor) -> Tensor:
    """For each row [N, D] the most similar of the centres [K, D]; the first if several are. i64 [N]."""
    size = _SIDE**2 // len(centres) + 1
    return torch.cat([(block.float() @ centres.T).argmax(1) for block in torch.split(rows, size)])


def default_threshold(rows: Tensor) -> float:
    """The cosine at a quarter of the median distance (1 - cosine) of rounded means [N, D] to their nearest neighbours.

    A model that groups by class puts different images as near as others put copies. If most rows have copies, the
    median is that of copies, and the result too high.
    """
    every = rows.float()
    asked = torch.split(every[:: len(every) // 1000 + 1], 32)
    nearest_two = torch.cat([(some @ every.T).topk(min(2, len(every))).values for some in asked])
    return min(0.999, 0.75 + 0.25 * float(nearest_two[:, -1].median()) / STEPS**2)


def keepers(means: Array, order: Array, threshold: float) -> Array:
    """For each row one that is more certain, similar and stays: itself if it stays. i64 [N], places in `order`.

    Args:
        means: rounded, i16 [M, D]; may be on disk.
        order: i64 [N], the rows of a cluster among them, the most certain first.
    """
    own = left = np.arange(len(order))
    keeper = own.copy()
    while len(left):
        head = left[:_SIDE]
        for start in range(0, len(left), _SIDE):
            others = left[start : start + _SIDE]
            rows, columns = (torch.from_numpy(means[order[some]]).float() for some in (head, others))
            # Of a row with itself and with those before it, zeros remain.
            similar = ((rows @ columns.T).triu(1 - start) >= threshold * STEPS**2).numpy()
            for place in np.flatnonzero(similar.any(1)):
                row = head[place]
                if keeper[row] == row:
                    keeper[others[similar[place]]] = row
        left = own[(own > head[-1]) & (keeper == own)]
    return keeper


def group_sizes(rows: Array, keeper: Array) -> tuple[Array, list[Array]]:
    """The number of groups by the bits of their size, and the largest: its size and some rows, that which stays first.

    Args:
        rows: [N], the most certain first.
        keeper: [N], as `keepers` returns it.
    """
    sizes = np.bincount(keeper, minlength=len(keeper))
    heads = (-sizes).argsort(kind="stable")[:_SHOWN]
    largest = [np.r_[sizes[head], rows[keeper == head][:_SHOWN]] for head in heads]
    return np.bincount(np.frexp(sizes)[1], minlength=64), largest


# ---- The command ----------------------------------------------------------------------------------------------------


def run_dedupe(options: DedupeOptions) -> list[str]:
    """Write the selection, and return the lines to print.

    Raises:
        UserError: a setting cannot be used, or the embeddings are not finished or have none of that kind.
        DataError: a part failed.
        OSError: a file cannot be written; see `check_writable`.
    """
    fits = options.threshold is None or 0 < options.threshold <= 0.999
    check(fits, "threshold", "must be above 0 and at most 0.999", options.threshold)
    check_at_least(0, clusters=options.clusters)
    if options.sheet is not None:
        check_writable(options.sheet)
    check_out(options.out)
    with TemporaryDirectory(dir=options.scratch.absolute()) as scratch:
        return _dedupe(options, Path(scratch))


def _dedupe(options: DedupeOptions, scratch: Path) -> list[str]:
    manifest, parts = complete_parts(Folder(options.embeddings), options.by)
    total = sum(part.count or 0 for part in parts)
    stride = total * manifest.dim // _SAMPLED | 1
    # A row's number is that of its part, times 2^32, plus its place in the source.
    row_type = np.dtype([("row", "i8"), ("total_var", "f4"), ("cluster", "i4"), ("mean", "i2", manifest.dim)])

    def scan(centres: Tensor | None, report: Report, numbers: Array) -> list[tuple[str, str]]:
        """Write a sample of the rows of some parts, or with centres all rows by cluster; return sources and stamps."""
        sources, found = [], [np.zeros(0, row_type)]
        for number in numbers:
            notes = parts[number].notes
            sources.append((notes.source, notes.stamp))
            for block in parts[number].blocks():
                row = (number << 32) + block.rows
                table: Array = np.rec.fromarrays([row, block.total_var, 0 * row, np.rint(block.mean * STEPS)], row_type)
                if options.within is not None:
                    within = read_selection(options.within, notes.source)
                    both = next(combine([Chosen(*sources[-1], block.rows)], within, "and"))
                    table = table[np.isin(block.rows, both.rows)]
                found.append(table)
                report(len(table))
        table = np.concatenate(found)
        if centres is None:
            np.save(scratch / f"sample-{numbers[0]:08}", table["mean"][table["row"] % 2**32 % stride == 0])
        else:
            table["cluster"] = nearest(torch.from_numpy(table["mean"]), centres)
            np.save(scratch / f"rows-{numbers[0]:08}", table[table["cluster"].argsort(kind="stable")])
        return sources

    def saved(name: str) -> list[Array]:
        return [np.load(path, "r") for path in sorted(scratch.glob(f"{name}-*"))]

    def compare(report: Report, cluster: int) -> tuple[Array, list[Array]]:
        """Write which rows of a cluster stay; returns their `group_sizes`."""
        table = _joined(
            [  # np.searchsorted would read all rows
                some[bisect_left(some["cluster"], cluster) : bisect_right(some["cluster"], cluster)]
                for some in saved("rows")
            ]
        )
        order = table["total_var"].argsort(kind="stable")
        keeper = keepers(table["mean"], order, threshold)
        report(len(table))
        np.save(scratch / f"stays-{cluster}", table["row"][order[np.unique(keeper)]])
        return group_sizes(table["row"][order], keeper)

    run = partial(run_units, options=options.engine, threads=1)
    units = np.array_split(range(len(parts)), min(len(parts), total // _TOGETHER + 1))
    sources = [one for _, some in sorted(run(units, partial(partial, scan, None), verb="sampled")) for one in some]
    learned = torch.from_numpy(np.concatenate(saved("sample")))
    check(len(learned), "within", f"must have samples of {options.embeddings}", options.within)
    total = len(learned) * stride
    centres = k_means(learned, options.clusters or int(total / max(_PER_CLUSTER, total**0.5)) + 1)
    list(run(units, partial(partial, scan, centres), verb="clustered"))
    threshold = options.threshold or default_threshold(learned)
    counts, largest = zip(
        *dict(run(range(len(centres)), partial(partial, compare), verb="compared")).values(), strict=True
    )
    sizes = np.sum(counts, 0)
    if options.sheet is not None:
        write_atomic(options.sheet, _sheet(options, manifest, parts, [*chain(*largest)]))

    def chosen() -> Iterator[Chosen]:
        stays = _joined(saved("stays"))
        stays.sort()
        for source, same in groupby(range(len(parts)), sources.__getitem__):
            first, *_, last = [*same] * 2
            here = slice(*np.searchsorted(stays, [first << 32, last + 1 << 32]))
            yield Chosen(*source, np.unique(stays[here].astype(np.uint32)))

    return [
        f"{options.out}: {write_selection(options.out, chosen()):,} samples stay, {sizes[0]:,} near-duplicates go "
        f"(cosine of at least {threshold:.4g})",
        *([_MANY] if 3 * sizes[0] > total else []),
        *(
            f"groups of {1 << bits >> 1} to {(1 << bits) - 1} samples: {sizes[bits]:,}"
            for bits in range(2, 64)
            if sizes[bits]
        ),
    ]


def _sheet(options: DedupeOptions, manifest: Manifest, parts: Sequence[Part], groups: Sequence[Array]) -> str:
    groups = sorted((group for group in groups if group[0] > 1), key=lambda group: (-group[0], group[1]))[:_SHOWN]

    def name_of(number: int) -> Name:
        part = parts[number >> 32]
        row = part.row(int(np.searchsorted(part.total_var()[0], number % 2**32)))
        return row["source"], row["key"]

    names = [[name_of(number) for number in group[1:].tolist()] for group in groups]
    contents = fetch(chain(*names), SIDE, options.store, manifest.settings.caption_key)
    rows = [
        Row(
            f"{group[0]:,} near-duplicates; the first stays",
            None,
            [Cell(name[1], contents.get(name), name[:1]) for name in some],
        )
        for group, some in zip(groups, names, strict=True)
    ]
    return contact_sheet(f"{Path(options.embeddings).name}: near-duplicates", rows)


def _joined(tables: list[Array]) -> Array:
    """Join tables on disk, since they may be large."""
    with TemporaryFile() as file:
        table = np.memmap(file, tables[0].dtype, "w+", shape=sum(map(len, tables)) + 1)[:-1]
    np.concatenate(tables, out=table)
    return table
