"""Cached embeddings of image-text pairs, streamed (.npz files are read whole). N pairs, D embedding."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from torch import Tensor

from prolip.embeddings.config import Kind
from prolip.embeddings.storage import Part, paired_parts
from prolip.errors import UserError, check
from prolip.store.folder import Folder

BLOCK = 1024
"""Rows that are read from a file at a time."""
BUFFER = 16_384
"""Rows to draw batches from; they are refilled from files in a random order."""
NAMES: tuple[Kind, Kind] = ("image", "text")
"""Arrays of a .npz file and columns of a Parquet file, one row per pair."""


class PairRows(NamedTuple):
    """Embeddings of pairs, of unit norm, f32 [N, D]."""

    image: Tensor
    text: Tensor
    masked_image: Tensor | None
    """A more general view of each image; None without such views."""
    masked_text: Tensor | None

    def rows(self, index: Tensor | slice) -> PairRows:
        """The pairs at `index`."""
        return PairRows(*(None if one is None else one[index] for one in self))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Table:
    """A file, or two files of a folder, with rows of images and of their texts."""

    path: str
    """The file that errors name."""
    count: int
    blocks: Callable[[int], Iterator[tuple[Any, Any]]]
    """Yields images and texts in order, [N, D] with at most the given number of rows."""
    first_key: str | None = None
    """Of the first row, in a folder of `prolip embed`."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of one or several sources."""

    tables: tuple[Table, ...]
    masked: tuple[Table, ...]
    """More general views of the same pairs, table by table; empty without."""
    count: int
    """N"""
    dim: int
    """D"""

    def blocks(self, order: Iterable[int] | None = None, rows: int = BLOCK) -> Iterator[PairRows]:
        """Yield all pairs, at most `rows` at a time; the tables in the given order.

        Raises:
            UserError: a row is not finite or is zero, or the masked views are not of the same pairs.
        """
        for place in range(len(self.tables)) if order is None else order:
            table = self.tables[place]
            views = self.masked[place].blocks(rows) if self.masked else cycle([(None, None)])
            for (image, text), view in zip(table.blocks(rows), views, strict=bool(self.masked)):
                masked = [None if one is None else unit(one, self.masked[place].path, self.dim) for one in view]
                yield PairRows(unit(image, table.path, self.dim), unit(text, table.path, self.dim), *masked)

    def batches(self, size: int, seed: int, *, buffer: int = BUFFER) -> Iterator[PairRows]:
        """Yield batches of `size` pairs (all, if there are fewer) in random order, epoch after epoch, without end."""
        generator = torch.Generator().manual_seed(seed)
        size = min(size, self.count)
        held: list[PairRows] = []

        def whole_batches(kept: int) -> Iterator[PairRows]:
            """Yield whole batches of the rows held, shuffled, until about `kept` are left."""
            columns = [None if column[0] is None else torch.cat(column) for column in zip(*held, strict=True)]
            pool = PairRows(*columns)  # type: ignore[arg-type]
            pool = pool.rows(torch.randperm(len(pool.image), generator=generator))
            end = (len(pool.image) - kept) // size * size
            for start in range(0, end, size):
                yield pool.rows(slice(start, start + size))
            held[:] = [pool.rows(slice(end, None))]

        while True:
            for block in self.blocks(torch.randperm(len(self.tables), generator=generator).tolist()):
                held.append(block)
                if sum(len(one.image) for one in held) >= max(buffer, 2 * size):
                    yield from whole_batches(max(buffer // 2, size))
            yield from whole_batches(0)

    def sample(self, rows: int) -> PairRows:
        """A random sample of at most `rows` pairs (of the first `BUFFER` in a random order of tables)."""
        return next(self.batches(min(rows, BUFFER), seed=0))


def unit(rows: Any, path: str, dim: int) -> Tensor:
    """Rows of unit norm, f32 [N, D]; a UserError if they are not finite, zero or of another dimension."""
    try:
        with np.errstate(over="ignore"):  # infinity is refused below
            tensor = torch.from_numpy(np.array(rows, dtype=np.float32))
    except (ValueError, TypeError) as error:  # the lists differ in length, or hold no numbers
        raise UserError(path, f"must hold embeddings of one length ({error})") from error
    lengths = tensor.norm(dim=-1)
    if tensor.ndim != 2 or tensor.shape[1] != dim or not bool((lengths.isfinite() & (lengths > 0)).all()):
        raise UserError(path, f"embeddings must be [N, {dim}], finite and not 0", list(tensor.shape))
    return F.normalize(tensor, dim=1)


# ---- Opening --------------------------------------------------------------------------------------------------------


def open_pairs(sources: Sequence[str], masked: Sequence[str] = ()) -> Pairs:
    """Open folders of `prolip embed`, .npz files and Parquet files.

    Args:
        sources: where the pairs are.
        masked: where more general views of the same pairs are, one for each source; or ().

    Raises:
        UserError: a source is not one of these, has no pairs, or the views are of other pairs.
    """
    tables, views = (
        [table for source in some for table in _tables(source, option)]
        for some, option in ((sources, "embeddings"), (masked, "masked"))
    )
    rows = [(table.count, table.first_key) for table in tables]
    if views and [(view.count, view.first_key) for view in views] != rows:
        raise UserError("masked", "must be views of the same rows, in the same order", ", ".join(masked))
    total = sum(table.count for table in tables)
    check(total, "embeddings", "hold no pairs", ", ".join(sources))
    first, _ = next(block for table in tables for block in table.blocks(1))
    return Pairs(tuple(tables), tuple(views), total, len(first[0]))


def is_folder(source: str) -> bool:
    """Whether a source is a folder, here or in an object store."""
    return Folder(source).is_remote or Path(source).is_dir()


def _tables(name: str, option: str) -> Iterator[Table]:
    source = Path(name)
    if is_folder(name):
        for image, text in paired_parts(Folder(name)):
            if image.count:
                yield Table(image.path, image.count, partial(_part_blocks, image, text), image.names()[0][0])
    elif source.suffix == ".npz" and source.is_file():
        with _reading(source), np.load(source) as file:
            image, text = (file[name] for name in NAMES)
        check(len(image) == len(text), source, "must have as many images as texts", f"{len(image)} and {len(text)}")
        yield Table(name, len(image), partial(_array_blocks, image, text))
    elif source.suffix == ".parquet" and source.is_file():
        with _reading(source), pq.ParquetFile(source) as file:
            count, missing = file.metadata.num_rows, set(NAMES) - set(file.schema_arrow.names)
        if missing:
            raise UserError(source, "needs columns image and text", f"no {min(missing)}")
        yield Table(name, count, partial(_column_blocks, source))
    else:
        raise UserError(option, "must be a folder of `prolip embed`, or an .npz or .parquet file", source)


def _part_blocks(images: Part, texts: Part, rows: int) -> Iterator[tuple[Any, Any]]:
    for image, text in zip(images.blocks(rows), texts.blocks(rows), strict=True):
        yield image.mean, text.mean


def _array_blocks(images: Any, texts: Any, rows: int) -> Iterator[tuple[Any, Any]]:
    for start in range(0, len(images), rows):
        yield images[start : start + rows], texts[start : start + rows]


def _column_blocks(path: Path, rows: int) -> Iterator[tuple[Any, Any]]:
    with _reading(path), pq.ParquetFile(path, memory_map=True) as file:
        for batch in file.iter_batches(batch_size=rows, columns=list(NAMES)):
            image, text = (batch.column(name).to_pylist() for name in NAMES)
            yield image, text


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Name a file of another program that cannot be read."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(path, f"must hold image and text, and not be damaged ({error})") from error
