"""Embeddings on disk: Parquet files ("parts") of Gaussians with keys and sources, and a manifest. N rows, D dimensions.

The columns are `key`, `source` (the key's shard, folder or text file), `mean` and `log_var` (fixed-size lists), and
`total_var`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from prolip.embeddings.config import Kind, Stored
from prolip.errors import UserError
from prolip.files import atomic_file, decode, write_atomic

Floats = NDArray[np.float32]

MANIFEST = "manifest.json"
ROWS = 8192
_NOTES = b"prolip"
_ROW_GROUP = 4096


class Rows(NamedTuple):
    """Contents of a part."""

    keys: list[str]
    """N keys: of samples, paths below a folder, or line numbers of a text file from 0."""
    sources: list[str]
    """N sources: shards, folders or text files."""
    mean: Floats
    """[N, D]"""
    log_var: Floats
    """[N, D]"""


class Block(NamedTuple):
    """Consecutive rows of a part."""

    start: int
    """Index of the first row in its part."""
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
    rows: int
    bad: int = 0
    named: tuple[str, ...] = ()
    """Descriptions of the first of them: place, key and reason."""


def part_name(kind: Kind, number: int) -> str:
    """File name of a part: "image-000012.parquet"."""
    return f"{kind}-{number:06d}.parquet"


def _schema(dim: int, stored: Stored) -> pa.Schema:
    """Names and types of the columns."""
    values, source = pa.list_(pa.type_for_alias(stored), dim), pa.dictionary(pa.int32(), pa.string())
    return pa.schema(
        {"key": pa.string(), "source": source, "mean": values, "log_var": values, "total_var": pa.float32()}
    )


def write_part(folder: Path, rows: Rows, notes: PartNotes, stored: Stored = "float32") -> Path:
    """Write a part's file atomically, and return its path."""
    path = folder / part_name(notes.kind, notes.number)
    total_var = np.exp(rows.log_var.astype(np.float64)).sum(axis=1).astype(np.float32)
    lists = [
        pa.FixedSizeListArray.from_arrays(pa.array(each.astype(stored).ravel()), each.shape[1])
        for each in (rows.mean, rows.log_var)
    ]
    schema = _schema(rows.mean.shape[1], stored).with_metadata({_NOTES: json.dumps(asdict(notes), ensure_ascii=False)})
    table = pa.table([rows.keys, rows.sources, *lists, total_var], schema=schema)
    with atomic_file(path, table.nbytes) as temporary:
        # Embeddings do not compress; uncompressed pages are read at the speed of the disk.
        pq.write_table(
            table,
            temporary,
            row_group_size=_ROW_GROUP,
            compression="none",
            use_dictionary=["source"],
            write_statistics=False,
            write_page_checksum=True,
        )
    return path


@dataclass(frozen=True)
class Part:
    """A part's file, memory-mapped and read in blocks.

    The methods raise UserError if it is missing or damaged, a row lacks a value, or a number is NaN.
    """

    path: Path

    @property
    def notes(self) -> PartNotes:
        """The part's metadata."""
        with self._reading() as file:
            notes = decode(PartNotes, json.loads(file.schema_arrow.metadata[_NOTES]))
            if notes.rows != file.metadata.num_rows:
                raise ValueError(f"rows: must be {notes.rows}, as noted (got {file.metadata.num_rows})")
            return notes

    def check(self, manifest: Manifest) -> None:
        """Check that the columns have the types that the manifest says."""
        with self._reading() as file:
            for column in _schema(manifest.dim, manifest.dtype):
                found = file.schema_arrow.field(column.name).type
                if found != column.type:
                    raise ValueError(f"column {column.name}: must be {column.type} (got {found})")

    def blocks(self, rows: int = ROWS, *, log_var: bool = False) -> Iterator[Block]:
        """Read the part in blocks of at most `rows` rows, in order."""
        names = ["mean", "total_var", *(["log_var"] if log_var else [])]
        start = 0
        with self._reading() as file:
            for batch in file.iter_batches(batch_size=rows, columns=names):
                found = {name: _numbers(batch, name) for name in names}
                yield Block(start, found["mean"], found.get("log_var"), found["total_var"].ravel())
                start += len(batch)

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
            with pq.ParquetFile(self.path, memory_map=True, page_checksum_verification=True) as file:
                yield file
        except FileNotFoundError as error:
            raise UserError(f"{self.path}: missing; {again}") from error
        except (pa.ArrowException, KeyError, TypeError, OSError, ValueError) as error:
            raise UserError(f"{self.path}: must be a part of embeddings ({error}); delete it, and {again}") from error


def _filled(rows: Any, name: str) -> Any:
    """A column of some rows of a part.

    Raises:
        ValueError: a row has no value.
    """
    if rows[name].null_count:
        raise ValueError(f"column {name}: must have a value in every row")
    return rows[name]


def _numbers(batch: Any, name: str) -> Floats:
    """A column of a batch, [N, D] or [N, 1].

    Raises:
        ValueError: a row has no number, or NaN.
    """
    column = _filled(batch, name)
    flat = column if name == "total_var" else column.flatten()
    values: Floats = flat.to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    if np.isnan(values).any():
        raise ValueError(f"column {name}: must have numbers (got NaN)")
    return values.reshape(len(batch), -1)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings that the numbers depend on, as in `EmbedOptions`."""

    what: str
    caption_key: str
    precision: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Contents and origin of a folder of embeddings."""

    checkpoint: str
    """The model, as named by the user."""
    weights: str
    """Digest of the model's tensors."""
    tokenizer: str | None
    """The tokenizer, as named by the user; None for the model's own."""
    model: dict[str, Any]
    dim: int
    """D."""
    dtype: Stored
    """dtype of means and log variances."""
    has_variances: bool = True
    """False for a model of open_clip: every `log_var` is minus infinity, every `total_var` 0."""
    epistemic: bool = False
    """Whether the variances say what the model has not learned (`prolip.pretrained.Model.epistemic`)."""
    logit_scale: float | None = None
    """Scale of the model's similarity; None in older folders."""
    logit_bias: float | None = None
    """Its bias; None for a model without one."""
    settings: Settings
    plan: list[dict[str, Any]]
    """The input of each part."""
    complete: bool = False
    parts: list[str] = field(default_factory=list)
    """File names, by kind and number."""
    rows: dict[str, int] = field(default_factory=dict)
    """Number of rows by kind."""
    bad: int = 0
    bad_samples: list[str] = field(default_factory=list)
    """Descriptions of the first of them in each part."""
    run: dict[str, float] = field(default_factory=dict)
    """The last run: samples, seconds, share of time waiting for data, processes."""

    def write(self, folder: Path) -> None:
        """Write manifest.json atomically."""
        write_atomic(folder / MANIFEST, json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the manifest of a folder of embeddings.

        Raises:
            UserError: there is none, or it is not of this version.
        """
        path = folder / MANIFEST
        if not path.is_file():
            raise UserError(f"{folder}: must have the {MANIFEST} that `prolip embed` writes")
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if (form := found.pop("format", "parquet")) != "parquet":  # of an older version
                raise ValueError(f"format: must be parquet (got {form}); embed again")
            return decode(cls, found, drop_unknown=True)
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: must be a manifest of embeddings ({error})") from error


def complete_parts(folder: Path, kind: Kind, *, instead: str = "") -> tuple[Manifest, list[Part]]:
    """The manifest of a finished folder, and its parts of one kind, in order.

    Args:
        instead: what to do without parts of that kind, for the error; such as "search them with --find text".

    Raises:
        UserError: the embeddings are not finished, or have none of that kind.
    """
    manifest = Manifest.read(folder)
    if not manifest.complete:
        raise UserError(f"{folder}: must be finished; run `prolip embed` again with the same settings")
    parts = [Part(folder / name) for name in manifest.parts if name.startswith(f"{kind}-")]
    if not parts:
        raise UserError(f"{folder}: must have {kind} embeddings{instead and f'; {instead}'}")
    for part in parts:
        part.check(manifest)
    return manifest, parts


def paired_parts(folder: Path) -> list[tuple[Part, Part]]:
    """The parts of images of a finished folder, each with that of their captions, in order.

    Raises:
        UserError: the embeddings are not finished, or are not of images and their captions.
    """
    images, texts = (
        {part.notes.number: part for part in complete_parts(folder, kind, instead="embed with --what both")[1]}
        for kind in get_args(Kind)
    )
    if not images.keys() <= texts.keys():
        raise UserError(f"{folder}: must hold images and captions of the same samples; embed with --what both")
    pairs = [(images[number], texts[number]) for number in sorted(images)]
    for image, text in pairs:
        if image.notes.rows != text.notes.rows:
            raise UserError(f"{text.path}: must have a row for each of {image.path.name}; delete both and embed again")
    return pairs
