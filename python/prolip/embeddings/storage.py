"""Embeddings on disk: part files (Parquet or safetensors) of Gaussians with keys and sources, and a manifest.

A part has `key`, `source` (the key's shard, folder or text file), `mean` and `log_var` (fixed-size lists in Parquet),
and `total_var`. N rows, D dimensions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from prolip.embeddings.config import Format, Kind, Stored
from prolip.embeddings.parquet import parquet, pyarrow
from prolip.errors import UserError
from prolip.files import atomic_file, write_atomic

Floats = NDArray[np.float32]

MANIFEST = "manifest.json"
ROWS = 8192
"""Rows per block."""
_NOTES = "prolip"
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
    """Number of the part in the plan."""
    kind: Kind
    """Whether the rows are images or captions."""
    rows: int
    """Number of rows."""
    bad: int = 0
    """Number of unusable samples."""
    named: tuple[str, ...] = ()
    """Descriptions of the first of them: place, key and reason."""


def part_name(kind: Kind, number: int, form: Format) -> str:
    """File name of a part: "image-000012.parquet"."""
    return f"{kind}-{number:06d}.{form}"


def write_part(folder: Path, rows: Rows, notes: PartNotes, form: Format, stored: Stored) -> Path:
    """Write a part's file atomically, and return its path.

    Raises:
        UserError: the format is Parquet and pyarrow is not installed.
    """
    path = folder / part_name(notes.kind, notes.number, form)
    total_var = np.exp(rows.log_var.astype(np.float64)).sum(axis=1).astype(np.float32)
    mean, log_var = rows.mean.astype(stored), rows.log_var.astype(stored)
    write = _write_parquet if form == "parquet" else _write_safetensors
    size = mean.nbytes + log_var.nbytes + total_var.nbytes + sum(map(len, rows.keys))
    with atomic_file(path, size) as temporary:
        write(temporary, rows, mean, log_var, total_var, notes)
    return path


@dataclass(frozen=True)
class Part:
    """A part's file, memory-mapped and read in blocks."""

    path: Path

    @property
    def notes(self) -> PartNotes:
        """The part's metadata.

        Raises:
            UserError: the file is not a part.
        """
        read = _parquet_notes if self.path.suffix == ".parquet" else _safetensors_notes
        with self._reading():
            found = json.loads(read(self.path))
            return PartNotes(**{**found, "named": tuple(found["named"])})

    def blocks(self, rows: int = ROWS, *, log_var: bool = False) -> Iterator[Block]:
        """Read the part in blocks of at most `rows` rows, in order.

        Raises:
            UserError: the file is not a part.
        """
        columns = ["mean", "total_var", *(["log_var"] if log_var else [])]
        read = _parquet_blocks if self.path.suffix == ".parquet" else _safetensors_blocks
        start = 0
        with self._reading():
            for found in read(self.path, columns, rows):
                yield Block(start, found["mean"], found.get("log_var"), found["total_var"])
                start += len(found["total_var"])

    def names(self) -> tuple[list[str], list[str]]:
        """Keys and sources of all rows.

        Raises:
            UserError: the file is not a part.
        """
        with self._reading():
            return (_parquet_names if self.path.suffix == ".parquet" else _safetensors_names)(self.path)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Say which file is missing or damaged, and how to get another one."""
        again = "`prolip embed` with the same settings makes it again"
        try:
            yield
        except UserError:  # pyarrow is not installed
            raise
        except FileNotFoundError as error:
            raise UserError(f"{self.path} is missing: {again}") from error
        except (SafetensorError, KeyError, TypeError, OSError, ValueError) as error:
            why = str(error).rstrip(".")
            raise UserError(f"{self.path} is not a part of embeddings: {why}; delete it, and {again}") from error


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
    """The architecture."""
    dim: int
    """D."""
    format: Format
    """Format of the parts."""
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
    """Inputs of each part."""
    complete: bool = False
    """Whether all parts exist."""
    parts: list[str] = field(default_factory=list)
    """File names, by kind and number."""
    rows: dict[str, int] = field(default_factory=dict)
    """Number of rows by kind."""
    bad: int = 0
    """Number of unusable samples."""
    bad_samples: list[str] = field(default_factory=list)
    """Descriptions of the first of them in each part."""
    run: dict[str, float] = field(default_factory=dict)
    """The last run: samples, seconds, share of time waiting for data, processes."""

    @property
    def has_lines(self) -> bool:
        """Whether captions come from text files, which have no samples to copy."""
        return any("path" in part for part in self.plan)

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
            raise UserError(f"{folder} has no {MANIFEST}: it was not written by `prolip embed`")
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path} is not a manifest of embeddings: {error}") from error


def complete_parts(folder: Path, kind: Kind, *, instead: str = "") -> tuple[Manifest, list[Part]]:
    """The manifest of a finished folder, and its parts of one kind, in order.

    Args:
        folder: what `prolip embed` wrote.
        kind: of images or of captions.
        instead: how to go on without parts of that kind, for the error; such as "search them with --find text".

    Raises:
        UserError: the embeddings are not finished, or have none of that kind.
    """
    manifest = Manifest.read(folder)
    if not manifest.complete:
        raise UserError(f"{folder} is not finished: run `prolip embed` again with the same settings")
    parts = [Part(folder / name) for name in manifest.parts if name.startswith(f"{kind}-")]
    if not parts:
        held = " and ".join(f"{name} embeddings" for name in manifest.rows) or "nothing"
        raise UserError(f"{folder} holds {held}, no {kind} embeddings{instead and f': {instead}'}")
    return manifest, parts


# ---- Parquet --------------------------------------------------------------------------------------------------------


def _write_parquet(
    path: Path, rows: Rows, mean: NDArray[Any], log_var: NDArray[Any], total_var: Floats, notes: PartNotes
) -> None:
    pa = pyarrow()
    dim = mean.shape[1]
    lists = [pa.FixedSizeListArray.from_arrays(pa.array(each.ravel()), dim) for each in (mean, log_var)]
    sources = pa.array(rows.sources, pa.string()).dictionary_encode()
    columns = [pa.array(rows.keys, pa.string()), sources, *lists, pa.array(total_var)]
    table = pa.table(columns, names=["key", "source", "mean", "log_var", "total_var"])
    table = table.replace_schema_metadata({_NOTES: json.dumps(asdict(notes), ensure_ascii=False)})
    # Embeddings do not compress; uncompressed pages are read at the speed of the disk.
    parquet().write_table(
        table, path, row_group_size=_ROW_GROUP, compression="none", use_dictionary=["source"], write_statistics=False
    )


def _parquet_notes(path: Path) -> str:
    return str(parquet().read_schema(path).metadata[_NOTES.encode()].decode())


def _parquet_names(path: Path) -> tuple[list[str], list[str]]:
    table = parquet().read_table(path, columns=["key", "source"], memory_map=True)
    return table["key"].to_pylist(), table["source"].to_pylist()


def _parquet_blocks(path: Path, columns: Sequence[str], rows: int) -> Iterator[dict[str, Floats]]:
    with parquet().ParquetFile(path, memory_map=True) as file:
        for batch in file.iter_batches(batch_size=rows, columns=list(columns)):
            found = {}
            for name in columns:
                column = batch.column(name)
                if name == "total_var":
                    found[name] = column.to_numpy()
                else:
                    flat = column.flatten().to_numpy(zero_copy_only=False)
                    found[name] = flat.astype(np.float32, copy=False).reshape(len(column), -1)
            yield found


# ---- safetensors ----------------------------------------------------------------------------------------------------


def _write_safetensors(
    path: Path, rows: Rows, mean: NDArray[Any], log_var: NDArray[Any], total_var: Floats, notes: PartNotes
) -> None:
    sources = list(dict.fromkeys(rows.sources))
    place = {name: number for number, name in enumerate(sources)}
    keys = [key.encode() for key in rows.keys]
    tensors = {
        "mean": mean,
        "log_var": log_var,
        "total_var": total_var,
        "key_bytes": np.frombuffer(b"".join(keys), np.uint8),
        "key_ends": np.cumsum([len(key) for key in keys], dtype=np.int64),
        "source": np.array([place[name] for name in rows.sources], np.int32),
        "source_names": np.frombuffer(json.dumps(sources).encode(), np.uint8),
    }
    # One entry only: the library writes several in an order that changes from run to run.
    words = {_NOTES: json.dumps(asdict(notes), ensure_ascii=False)}
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, path, words)


def _safetensors_notes(path: Path) -> str:
    with safe_open(path, "np") as file:
        return str(file.metadata()[_NOTES])


def _safetensors_names(path: Path) -> tuple[list[str], list[str]]:
    with safe_open(path, "np") as file:
        sources = json.loads(file.get_tensor("source_names").tobytes())
        ends = file.get_tensor("key_ends").tolist()
        joined = file.get_tensor("key_bytes").tobytes()
        places = file.get_tensor("source").tolist()
    starts = [0, *ends[:-1]]
    keys = [joined[start:end].decode() for start, end in zip(starts, ends, strict=False)]
    return keys, [sources[place] for place in places]


def _safetensors_blocks(path: Path, columns: Sequence[str], rows: int) -> Iterator[dict[str, Floats]]:
    with safe_open(path, "np") as file:
        slices = {name: file.get_slice(name) for name in columns}
        count = slices["total_var"].get_shape()[0]
        for start in range(0, count, rows):
            end = min(start + rows, count)
            yield {name: each[start:end].astype(np.float32, copy=False) for name, each in slices.items()}
