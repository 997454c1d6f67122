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
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from prolip.embeddings.config import Kind, Stored
from prolip.errors import UserError
from prolip.files import atomic_file, write_atomic

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


def write_part(folder: Path, rows: Rows, notes: PartNotes, stored: Stored = "float32") -> Path:
    """Write a part's file atomically, and return its path."""
    path = folder / part_name(notes.kind, notes.number)
    total_var = np.exp(rows.log_var.astype(np.float64)).sum(axis=1).astype(np.float32)
    lists = [
        pa.FixedSizeListArray.from_arrays(pa.array(each.astype(stored).ravel()), each.shape[1])
        for each in (rows.mean, rows.log_var)
    ]
    sources = pa.array(rows.sources, pa.string()).dictionary_encode()
    columns = [pa.array(rows.keys, pa.string()), sources, *lists, pa.array(total_var)]
    table = pa.table(columns, names=["key", "source", "mean", "log_var", "total_var"])
    table = table.replace_schema_metadata({_NOTES: json.dumps(asdict(notes), ensure_ascii=False)})
    with atomic_file(path, table.nbytes) as temporary:
        # Embeddings do not compress; uncompressed pages are read at the speed of the disk.
        pq.write_table(
            table,
            temporary,
            row_group_size=_ROW_GROUP,
            compression="none",
            use_dictionary=["source"],
            write_statistics=False,
        )
    return path


@dataclass(frozen=True)
class Part:
    """A part's file, memory-mapped and read in blocks. The methods raise UserError if it is missing or damaged."""

    path: Path

    @property
    def notes(self) -> PartNotes:
        """The part's metadata."""
        with self._reading():
            found = json.loads(pq.read_schema(self.path).metadata[_NOTES])
            return PartNotes(**{**found, "named": tuple(found["named"])})

    def blocks(self, rows: int = ROWS, *, log_var: bool = False) -> Iterator[Block]:
        """Read the part in blocks of at most `rows` rows, in order."""
        lists = ["mean", "log_var"] if log_var else ["mean"]
        start = 0
        with self._reading(), pq.ParquetFile(self.path, memory_map=True) as file:
            for batch in file.iter_batches(batch_size=rows, columns=[*lists, "total_var"]):
                flat = [batch.column(name).flatten().to_numpy(zero_copy_only=False) for name in lists]
                mean, *more = (values.astype(np.float32, copy=False).reshape(len(batch), -1) for values in flat)
                yield Block(start, mean, more[0] if more else None, batch.column("total_var").to_numpy())
                start += len(batch)

    def names(self) -> tuple[list[str], list[str]]:
        """Keys and sources of all rows."""
        with self._reading():
            table = pq.read_table(self.path, columns=["key", "source"], memory_map=True)
            return table["key"].to_pylist(), table["source"].to_pylist()

    def row(self, index: int) -> dict[str, Any]:
        """All columns of one row."""
        group, place = divmod(index, _ROW_GROUP)
        with self._reading(), pq.ParquetFile(self.path, memory_map=True) as file:
            found: dict[str, Any] = file.read_row_group(group).slice(place, 1).to_pylist()[0]
            return found

    @contextmanager
    def _reading(self) -> Iterator[None]:
        again = "run `prolip embed` again with the same settings"
        try:
            yield
        except FileNotFoundError as error:
            raise UserError(f"{self.path}: missing; {again}") from error
        except (KeyError, TypeError, OSError, ValueError) as error:
            raise UserError(f"{self.path}: must be a part of embeddings ({error}); delete it, and {again}") from error


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
    settings: dict[str, Any]
    """Other settings that the numbers depend on."""
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
                raise UserError(f"{path}: format must be parquet (got {form}); embed again")
            return cls(**found)
        except (ValueError, TypeError, AttributeError) as error:
            if isinstance(error, UserError):
                raise
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
    return manifest, parts
