"""Embeddings in a folder: Parquet files ("parts") of Gaussians with the places of their samples, and a manifest.

The columns are `source` (the shard, folder or text file), `row` (the sample's place in it), `key`, `mean` and
`log_var` (fixed-size lists, the latter only on request), `total_var`, `width` and `height`. N rows, D dimensions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Self, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from prolip.embeddings.config import Kind, Stored
from prolip.errors import UserError, check
from prolip.store.folder import Folder
from prolip.store.typed_tables import decode

Floats = NDArray[np.float32]

MANIFEST = "manifest.json"
ROWS = 8192
_NOTES = b"prolip"
_ROW_GROUP = 4096


class Rows(NamedTuple):
    """Contents of a part."""

    keys: list[str]
    """N keys: of samples, paths below a folder, or line numbers of a text file from 0."""
    rows: NDArray[np.uint32]
    """[N], places in the source, from 0: of samples in their shard, counting those that cannot be read; of images among
    all of the folder, sorted; of lines."""
    mean: Floats
    """[N, D]"""
    log_var: Floats
    """[N, D]"""
    sizes: NDArray[np.int32]
    """[N, 2], width and height of the images in their files, orientation tags ignored; 0 where no image was read."""


class Block(NamedTuple):
    """Consecutive rows of a part."""

    start: int
    """Index of the first row in its part."""
    rows: NDArray[np.uint32]
    """[N], places in the source."""
    mean: Floats
    """[N, D]"""
    log_var: Floats | None
    """[N, D]; None if not requested."""
    total_var: Floats
    """[N], from the variances in full precision, even if `log_var` is stored in half precision."""


@dataclass(frozen=True, kw_only=True)
class PartNotes:
    """Metadata of a part."""

    number: int
    """Number of its input in the plan."""
    kind: Kind
    source: str
    """The shard, folder or text file, without secrets."""
    stamp: str
    """As in `prolip.store.selection`; the same for every copy."""
    weights: str
    """Digest of the model's tensors."""
    rows: int
    bad: int = 0
    named: tuple[str, ...] = ()
    """Descriptions of the first of them: place, key and reason."""


def part_name(kind: Kind, number: int) -> str:
    """File name of a part: "image-000012.parquet"."""
    return f"{kind}-{number:06d}.parquet"


def schema(dim: int, stored: Stored, *, log_var: bool) -> pa.Schema:
    """Names and types of the columns."""
    values = pa.list_(pa.type_for_alias(stored), dim)
    types = {"source": pa.dictionary(pa.int32(), pa.string()), "row": pa.uint32(), "key": pa.string(), "mean": values}
    types |= {"log_var": values} if log_var else {}
    return pa.schema(types | {"total_var": pa.float32(), "width": pa.int32(), "height": pa.int32()})


def write_part(
    folder: Folder, rows: Rows, notes: PartNotes, stored: Stored = "float16", *, log_var: bool = False
) -> Part:
    """Write a part's file, whole or not at all, and return it.

    Args:
        stored: dtype of means and log variances.
        log_var: whether to store log variances.
    """
    columns = schema(rows.mean.shape[1], stored, log_var=log_var)
    found = {
        "source": pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(rows.keys), np.int32)), [notes.source]),
        "row": rows.rows,
        "key": rows.keys,
        "mean": _lists(rows.mean, stored),
        "log_var": _lists(rows.log_var, stored) if log_var else None,
        "total_var": np.exp(rows.log_var.astype(np.float64)).sum(axis=1).astype(np.float32),
        "width": rows.sizes[:, 0],
        "height": rows.sizes[:, 1],
    }
    told = {_NOTES: json.dumps(asdict(notes), ensure_ascii=False)}
    table = pa.table([found[name] for name in columns.names], schema=columns.with_metadata(told))
    file = pa.BufferOutputStream()
    # Embeddings do not compress; uncompressed pages are read at the speed of the disk.
    pq.write_table(
        table,
        file,
        row_group_size=_ROW_GROUP,
        compression="none",
        use_dictionary=["source"],
        write_statistics=False,
        write_page_checksum=True,
    )
    part = Part(folder, part_name(notes.kind, notes.number), columns)
    folder.write(part.name, file.getvalue())
    return part


def _lists(values: Floats, stored: Stored) -> Any:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.astype(stored).ravel()), values.shape[1])


@dataclass(frozen=True)
class Part:
    """A part's file, read in blocks; a local one is memory-mapped.

    The methods raise UserError if it is missing or damaged, has other columns or rows than expected, a row lacks a
    value, or a number is NaN.
    """

    folder: Folder
    name: str
    schema: pa.Schema | None = None
    """Its columns, if known."""
    count: int | None = None
    """Number of its rows, if known."""

    @property
    def path(self) -> str:
        """Path or address of the file."""
        return self.folder.at(self.name)

    @property
    def notes(self) -> PartNotes:
        """The part's metadata."""
        with self._reading() as file:
            notes = decode(PartNotes, json.loads(file.schema_arrow.metadata[_NOTES]))
            if notes.rows != file.metadata.num_rows:
                raise ValueError(f"rows: must be {notes.rows}, as noted (got {file.metadata.num_rows})")
            return notes

    def blocks(self, rows: int = ROWS, *, log_var: bool = False) -> Iterator[Block]:
        """Read the part in blocks of at most `rows` rows, in order."""
        names = ["row", "mean", "total_var", *(["log_var"] if log_var else [])]
        start = 0
        with self._reading() as file:
            for batch in file.iter_batches(batch_size=rows, columns=names):
                found = {name: _numbers(batch, name) for name in names[1:]}
                places = _filled(batch, "row").to_numpy()
                yield Block(start, places, found["mean"], found.get("log_var"), found["total_var"].ravel())
                start += len(batch)
            if start != file.metadata.num_rows:
                raise ValueError(f"rows: must be {file.metadata.num_rows} (got {start})")

    def total_var(self) -> tuple[NDArray[np.uint32], Floats]:
        """Places in the source, and total variances, of all rows."""
        with self._reading() as file:
            table = file.read(["row", "total_var"])
            return _filled(table, "row").to_numpy(), _numbers(table, "total_var").ravel()

    def names(self) -> tuple[list[str], list[str]]:
        """Keys and sources of all rows."""
        with self._reading() as file:
            table = file.read(["key", "source"])
            return _filled(table, "key").to_pylist(), _filled(table, "source").to_pylist()

    def row(self, index: int) -> dict[str, Any]:
        """All columns of one row."""
        with self._reading() as file:
            group = 0
            while index >= (rows := file.metadata.row_group(group).num_rows):
                group, index = group + 1, index - rows
            found: dict[str, Any] = file.read_row_group(group).slice(index, 1).to_pylist()[0]
            if None in found.values():
                raise ValueError("every row must have a value in each column")
            return found

    @contextmanager
    def _reading(self) -> Iterator[pq.ParquetFile]:
        again = "run `prolip embed` again with the same settings"
        try:
            stream = self.folder.open(self.name)
        except FileNotFoundError as error:
            raise UserError(self.path, f"missing; {again}") from error
        try:
            with (
                stream,
                pq.ParquetFile(stream, pre_buffer=self.folder.is_remote, page_checksum_verification=True) as file,
            ):
                for column in self.schema or ():
                    if (found := file.schema_arrow.field(column.name).type) != column.type:
                        raise ValueError(f"column {column.name}: must be {column.type} (got {found})")
                if self.count not in {None, file.metadata.num_rows}:
                    raise ValueError(f"rows: must be {self.count} (got {file.metadata.num_rows})")
                yield file
        except (pa.ArrowException, KeyError, TypeError, OSError, ValueError) as error:
            raise UserError(
                self.path, f"must be a part of embeddings ({error}); if it is damaged, delete it, and {again}"
            ) from error


def _filled(rows: Any, name: str) -> Any:
    """A column of some rows of a part; a ValueError if a row has no value."""
    if rows[name].null_count:
        raise ValueError(f"column {name}: must have a value in every row")
    return rows[name]


def _numbers(batch: Any, name: str) -> Floats:
    """A column of a batch, [N, D] or [N, 1]; a ValueError if a row has no number, or NaN."""
    column = _filled(batch, name)
    flat, width = (column, 1) if name == "total_var" else (column.flatten(), column.type.list_size)
    values: Floats = flat.to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    if np.isnan(values).any():
        raise ValueError(f"column {name}: must have numbers (got NaN)")
    return values.reshape(-1, width)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings that the numbers depend on, as in `EmbedOptions`."""

    what: str
    caption_key: str
    precision: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Contents and origin of a folder of embeddings."""

    checkpoint: str | None
    """The model, as named by the user; None if it is not known (`prolip import`)."""
    weights: str
    """Digest of the model's tensors, empty if it is not known."""
    tokenizer: str | None
    """The tokenizer, as named by the user; None for the model's own."""
    model: dict[str, Any]
    dim: int
    """D."""
    dtype: Stored
    """dtype of means and log variances."""
    log_var: bool
    """Whether the parts have log variances."""
    has_variances: bool = True
    """False for a model of open_clip: every `log_var` is minus infinity, every `total_var` 0."""
    logit_scale: float
    """Scale of the model's similarity."""
    logit_bias: float | None
    """Its bias; None for a model without one."""
    settings: Settings
    plan: list[dict[str, Any]]
    """The inputs that the folder holds, each with a part of each kind."""
    complete: bool = False
    parts: dict[str, int] = field(default_factory=dict)
    """Number of rows by file name; the files are sorted by kind and number."""
    rows: dict[str, int] = field(default_factory=dict)
    """Number of rows by kind."""
    bad: int = 0
    bad_samples: list[str] = field(default_factory=list)
    """Descriptions of the first of them in each part."""
    run: dict[str, float] = field(default_factory=dict)
    """The last run: samples, seconds, share of time waiting for data, processes."""

    def to_json(self) -> bytes:
        """The contents of manifest.json."""
        return f"{json.dumps(asdict(self), indent=1, ensure_ascii=False)}\n".encode()

    def write(self, folder: Folder) -> None:
        """Write manifest.json, whole or not at all."""
        folder.write(MANIFEST, self.to_json())

    @classmethod
    def of_json(cls, folder: Folder, text: bytes) -> Self:
        """The manifest of a folder from its file's contents; a UserError if they are not of this version."""
        try:
            return decode(cls, json.loads(text))
        except ValueError as error:
            raise UserError(
                folder.at(MANIFEST), f"must be a manifest of this version ({error}); embed again"
            ) from error

    @classmethod
    def read(cls, folder: Folder) -> Self:
        """Read the manifest of a folder of embeddings.

        Raises:
            UserError: there is none, or it is not of this version.
        """
        try:
            return cls.of_json(folder, folder.read(MANIFEST))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UserError(
                folder.address, f"must have the {MANIFEST} that `prolip embed` and `prolip import` write"
            ) from error


def complete_parts(
    folder: Folder, kind: Kind, *, instead: str = "", log_var: bool = False
) -> tuple[Manifest, list[Part]]:
    """The manifest of a finished folder, and its parts of one kind, in order. The parts are not opened.

    Args:
        instead: what to do without parts of that kind, for the error; such as "search them with --find text".
        log_var: whether log variances are needed.

    Raises:
        UserError: the embeddings are not finished, or have none of that kind, or no log variances.
    """
    manifest = Manifest.read(folder)
    check(not log_var or manifest.log_var, "log_var", "must be stored; embed with --log_var", folder.address)
    check(manifest.complete, folder.address, "must be finished; run `prolip embed` again with the same settings")
    columns = schema(manifest.dim, manifest.dtype, log_var=manifest.log_var)
    parts = [Part(folder, name, columns, rows) for name, rows in manifest.parts.items() if name.startswith(f"{kind}-")]
    if not parts:
        raise UserError(folder.address, f"must have {kind} embeddings{instead and f'; {instead}'}")
    return manifest, parts


class Sampled(NamedTuple):
    """Rows of a random sample."""

    places: NDArray[np.int64]
    """[N], in the sample."""
    numbers: NDArray[np.int64]
    """[N], among the rows of all parts."""
    mean: Floats
    """[N, D]"""
    total_var: Floats
    """[N]"""


def sample_rows(parts: Sequence[Part], size: int) -> Iterator[tuple[Part, Sampled]]:
    """Read a random sample of at most `size` rows, in random order; the same of any parts with as many rows."""
    counts = [part.count or 0 for part in parts]
    chosen = np.random.default_rng(0).permutation(sum(counts))[:size]
    for part, start in zip(parts, np.cumsum([0, *counts]), strict=False):
        for block in part.blocks():
            row = chosen - (start + block.start)
            places = np.flatnonzero((row >= 0) & (row < len(block.mean)))
            rows = row[places]
            yield part, Sampled(places, chosen[places], block.mean[rows], block.total_var[rows])


def paired_parts(folder: Folder, *, log_var: bool = False) -> list[tuple[Part, Part]]:
    """The parts of images of a finished folder, each with that of their captions, in order.

    Raises:
        UserError: the embeddings are not finished, or are not of images and their captions, or have no log variances.
    """
    how = "embed with --what both"
    images, texts = (
        {part.name.removeprefix(kind): part for part in complete_parts(folder, kind, instead=how, log_var=log_var)[1]}
        for kind in get_args(Kind)
    )
    check(
        images.keys() <= texts.keys(),
        folder.address,
        "must hold images and captions of the same samples; embed with --what both",
    )
    pairs = [(image, texts[number]) for number, image in images.items()]
    for image, text in pairs:
        check(
            image.count == text.count,
            text.path,
            f"must have a row for each of {image.name}; delete both and embed again",
        )
    return pairs
