"""Cached embeddings of image-text pairs, streamed: memory does not grow with their number, except for .npz files.

Pairs come from folders of `prolip embed`, from .npz files, or from Parquet files of other programs. Batches are drawn
from a buffer of a few thousand rows that is refilled from files in a random order.

N pairs, D embedding.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from prolip.embeddings.storage import MANIFEST, Part, complete_parts
from prolip.errors import UserError

BLOCK = 1024
"""Rows that are read from a file at a time."""
BUFFER = 16_384
"""Rows to draw batches from."""
NAMES = ("image", "text")
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
class PartPair:
    """The images and the texts of the same samples, as `prolip embed` wrote them."""

    image: Part
    text: Part

    @property
    def path(self) -> Path:
        """The file that errors name."""
        return self.image.path

    @property
    def count(self) -> int:
        """Number of rows."""
        return self.image.notes.rows

    def blocks(self, rows: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Yield images and texts [N, D], at most `rows` at a time, in order."""
        for image, text in zip(self.image.blocks(rows), self.text.blocks(rows), strict=True):
            yield image.mean, text.mean


@dataclass(frozen=True)
class NpzFile:
    """A file of numpy arrays, which are read whole."""

    path: Path

    @property
    def count(self) -> int:
        """Number of rows."""
        image, text = self._arrays()
        if len(image) != len(text):
            raise UserError(f"{self.path}: must have as many images as texts (got {len(image)} and {len(text)})")
        return len(image)

    def blocks(self, rows: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """See `PartPair`."""
        image, text = self._arrays()
        for start in range(0, len(image), rows):
            yield image[start : start + rows], text[start : start + rows]

    def _arrays(self) -> list[NDArray[Any]]:
        with _reading(self.path), np.load(self.path) as file:
            if missing := set(NAMES) - set(file.files):
                raise UserError(f"{self.path}: has no array {min(missing)!r}; it needs image and text")
            arrays = [file[name] for name in NAMES]
        for name, array in zip(NAMES, arrays, strict=True):
            if array.ndim != 2 or array.dtype.kind != "f":
                raise UserError(f"{self.path}: {name} must be floats [N, D] (got {array.dtype} {list(array.shape)})")
        return arrays


@dataclass(frozen=True)
class ParquetFile:
    """A Parquet file of another program, with lists of numbers."""

    path: Path

    @property
    def count(self) -> int:
        """Number of rows."""
        with _reading(self.path):
            return int(pq.read_metadata(self.path).num_rows)

    def blocks(self, rows: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """See `PartPair`."""
        with _reading(self.path), pq.ParquetFile(self.path, memory_map=True) as file:
            for batch in file.iter_batches(batch_size=rows, columns=list(NAMES)):
                image, text = (self._rows(batch.column(name), name) for name in NAMES)
                yield image, text

    def _rows(self, column: Any, name: str) -> NDArray[Any]:
        try:
            rows = np.stack(column.to_numpy(zero_copy_only=False))
        except ValueError:  # the lists differ in length
            rows = np.empty(0)
        if rows.ndim != 2 or rows.dtype.kind not in "fiu":
            raise UserError(f"{self.path}: {name} must have a list of numbers in every row, all of the same length")
        return rows


Table = PartPair | NpzFile | ParquetFile
"""A file, or two files of a folder, with rows of images and of their texts."""


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
                masked = [None if one is None else _unit(one, self.masked[place].path, self.dim) for one in view]
                yield PairRows(_unit(image, table.path, self.dim), _unit(text, table.path, self.dim), *masked)

    def batches(self, size: int, seed: int, *, buffer: int = BUFFER) -> Iterator[PairRows]:
        """Yield batches of `size` pairs (all, if there are fewer) in random order, epoch after epoch, without end."""
        generator = torch.Generator().manual_seed(seed)
        size = min(size, self.count)
        held: list[PairRows] = []
        while True:
            for block in self.blocks(torch.randperm(len(self.tables), generator=generator).tolist()):
                held.append(block)
                if sum(len(one.image) for one in held) >= max(buffer, 2 * size):
                    pool = _shuffled(held, generator)
                    kept = max(buffer // 2, size)
                    yield from _cut(pool, size, len(pool.image) - kept)
                    held = [pool.rows(slice(_whole(len(pool.image) - kept, size), None))]
            pool = _shuffled(held, generator)
            yield from _cut(pool, size, len(pool.image))
            rest = pool.rows(slice(_whole(len(pool.image), size), None))
            held = [rest] if len(rest.image) else []

    def sample(self, rows: int) -> PairRows:
        """A random sample of at most `rows` pairs (of the first `BUFFER` in a random order of tables)."""
        return next(self.batches(min(rows, BUFFER), seed=0))


def _whole(rows: int, size: int) -> int:
    """Return how many of `rows` rows are in whole batches."""
    return rows // size * size


def _cut(pool: PairRows, size: int, rows: int) -> Iterator[PairRows]:
    for start in range(0, _whole(rows, size), size):
        yield pool.rows(slice(start, start + size))


def _shuffled(held: Sequence[PairRows], generator: torch.Generator) -> PairRows:
    columns = [None if column[0] is None else torch.cat(column) for column in zip(*held, strict=True)]
    pool = PairRows(*columns)  # type: ignore[arg-type]
    return pool.rows(torch.randperm(len(pool.image), generator=generator))


def _unit(rows: NDArray[Any], path: Path, dim: int) -> Tensor:
    """Rows of unit norm, f32 [N, D].

    Raises:
        UserError: a row has another dimension, is not finite, or is zero.
    """
    if rows.ndim != 2 or rows.shape[1] != dim:
        raise UserError(f"{path} has embeddings of the shape {rows.shape}: it must be [N, {dim}]")
    with np.errstate(over="ignore"):  # infinity is refused below
        tensor = torch.from_numpy(np.array(rows, dtype=np.float32))
    lengths = tensor.norm(dim=1)
    bad = ~(lengths.isfinite() & (lengths > 0))
    if bool(bad.any()):
        raise UserError(f"{path} has an embedding of length {float(lengths[bad][0])}: it must be finite and not 0")
    return F.normalize(tensor, dim=1)


# ---- Opening --------------------------------------------------------------------------------------------------------


def open_pairs(sources: Sequence[Path], masked: Sequence[Path] = ()) -> Pairs:
    """Open folders of `prolip embed`, .npz files and Parquet files.

    Args:
        sources: where the pairs are.
        masked: where more general views of the same pairs are, one for each source; or ().

    Raises:
        UserError: a source is not one of these, has no pairs, or the views have another number of rows.
    """
    tables = [table for source in sources for table in _tables(source, "embeddings")]
    views = [table for source in masked for table in _tables(source, "masked")]
    counts = [table.count for table in tables]
    if views and [view.count for view in views] != counts:
        raise UserError(
            f"masked: {', '.join(map(str, masked))} and {', '.join(map(str, sources))} do not have the same rows: "
            "embed the same samples in the same order"
        )
    for table, view in zip(tables, views, strict=False):
        if (
            isinstance(table, PartPair)
            and isinstance(view, PartPair)
            and table.image.names()[0] != view.image.names()[0]
        ):
            raise UserError(f"masked: {view.path} and {table.path} have different keys: embed the same samples")
    if not sum(counts):
        raise UserError(f"embeddings: {', '.join(map(str, sources))} hold no pairs")
    first = next(block for table in tables for block in table.blocks(1))[0]
    return Pairs(tuple(tables), tuple(views), sum(counts), int(np.shape(first)[-1]))


def _tables(source: Path, option: str) -> list[Table]:
    """The tables of a source, which an option names.

    Raises:
        UserError: it is not a source of pairs.
    """
    if source.is_dir():
        return [*_folder_tables(source, option)]
    if not source.is_file():
        raise UserError(f"{option}: {source} is neither a folder of `prolip embed` nor a file")
    if source.suffix == ".npz":
        if not zipfile.is_zipfile(source):
            raise UserError(f"{source} is not a file of numpy arrays")
        return [NpzFile(source)]
    if source.suffix == ".parquet":
        with _reading(source):
            missing = set(NAMES) - set(pq.read_schema(source).names)
        if missing:
            raise UserError(f"{source} has no column {min(missing)!r}: it needs image and text")
        return [ParquetFile(source)]
    raise UserError(f"{option}: {source} is neither a folder of `prolip embed` nor an .npz or .parquet file")


def _folder_tables(folder: Path, option: str) -> Iterator[PartPair]:
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{option}: {folder} has no {MANIFEST}: it was not written by `prolip embed`")
    images, captions = (complete_parts(folder, kind, instead="embed with --what both")[1] for kind in ("image", "text"))
    texts = {part.path.name.removeprefix("text-"): part for part in captions}
    for part in images:
        text = texts.get(part.path.name.removeprefix("image-"))
        if text is None:
            raise UserError(f"{option}: {folder} has no texts for {part.path.name}: embed with --what both")
        if part.notes.rows:
            yield PartPair(part, text)


# ---- Files of other programs ----------------------------------------------------------------------------------------


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Say which file is damaged."""
    try:
        yield
    except UserError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:  # numpy and pyarrow: ValueError
        raise UserError(f"{path} is damaged: {error}") from error
