"""Embeddings on the disk: part files of Gaussians with their keys and sources, Parquet or safetensors, and a manifest.

A part holds `key`, `source` (the shard, folder or text file that the key is from), `mean` and `log_var` (in Parquet
fixed-size lists), and `total_var`. N rows, D dimensions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from prolip.embeddings.config import Format, Kind, Stored
from prolip.embeddings.parquet import parquet, pyarrow
from prolip.files import whole_file, write_whole

Floats = NDArray[np.float32]

MANIFEST = "manifest.json"
ROWS = 8192
"""Rows that are read at a time."""
_NOTES = "prolip"
_ROW_GROUP = 4096


class Rows(NamedTuple):
    """What a part holds."""

    keys: list[str]
    """The samples' keys, N of them; of a folder paths below it, of a text file numbers of lines from 0."""
    sources: list[str]
    """Where each is from."""
    mean: Floats
    """[N, D]"""
    log_var: Floats
    """[N, D]"""


class Block(NamedTuple):
    """Some rows of a part, one after another."""

    start: int
    """The place of the first in its part."""
    mean: Floats
    """[N, D]"""
    log_var: Floats | None
    """[N, D]; None where it was not asked for."""
    total_var: Floats
    """[N], of the variances as they were computed: not those of `log_var`, where that is kept in half precision."""


@dataclass(frozen=True, kw_only=True)
class PartNotes:
    """What a part says of itself."""

    number: int
    """Its place in the plan."""
    kind: Kind
    """Whether the rows are pictures or captions."""
    rows: int
    """Rows."""
    bad: int = 0
    """Samples that could not be used."""
    named: tuple[str, ...] = ()
    """The first of those: where, which, and what is wrong."""


def part_name(kind: Kind, number: int, form: Format) -> str:
    """The file of a part: "image-000012.parquet"."""
    return f"{kind}-{number:06d}.{form}"


def write_part(folder: Path, rows: Rows, notes: PartNotes, form: Format, stored: Stored) -> Path:
    """The part's file, which appears under its name when it is whole.

    Raises:
        ValueError: Parquet is asked for and pyarrow is not installed.
    """
    path = folder / part_name(notes.kind, notes.number, form)
    total_var = np.exp(rows.log_var.astype(np.float64)).sum(axis=1).astype(np.float32)
    mean, log_var = rows.mean.astype(stored), rows.log_var.astype(stored)
    write = _write_parquet if form == "parquet" else _write_safetensors
    with whole_file(path) as temporary:
        write(temporary, rows, mean, log_var, total_var, notes)
    return path


@dataclass(frozen=True)
class Part:
    """A part's file, read in blocks; the file is mapped, and no more of it is in memory than a block."""

    path: Path

    @property
    def notes(self) -> PartNotes:
        """What the part says of itself.

        Raises:
            ValueError: the file is no part.
        """
        read = _parquet_notes if self.path.suffix == ".parquet" else _safetensors_notes
        try:
            found = json.loads(read(self.path))
            return PartNotes(**{**found, "named": tuple(found["named"])})
        except (SafetensorError, KeyError, TypeError, OSError, ValueError) as error:
            raise ValueError(f"{self.path} is no part of embeddings: {error}") from error

    def blocks(self, rows: int = ROWS, *, log_var: bool = False) -> Iterator[Block]:
        """The part in blocks of at most `rows` rows, in order."""
        columns = ["mean", "total_var", *(["log_var"] if log_var else [])]
        read = _parquet_blocks if self.path.suffix == ".parquet" else _safetensors_blocks
        start = 0
        for found in read(self.path, columns, rows):
            yield Block(start, found["mean"], found.get("log_var"), found["total_var"])
            start += len(found["total_var"])

    def names(self) -> tuple[list[str], list[str]]:
        """Keys and sources of all rows."""
        if self.path.suffix == ".parquet":
            table = parquet().read_table(self.path, columns=["key", "source"], memory_map=True)
            return table["key"].to_pylist(), table["source"].to_pylist()
        with safe_open(self.path, "np") as file:
            sources = json.loads(file.metadata()["sources"])
            ends = file.get_tensor("key_ends").tolist()
            joined = file.get_tensor("key_bytes").tobytes()
            places = file.get_tensor("source").tolist()
        starts = [0, *ends[:-1]]
        keys = [joined[start:end].decode() for start, end in zip(starts, ends, strict=False)]
        return keys, [sources[place] for place in places]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a folder of embeddings holds, and what it was made of."""

    checkpoint: str
    """The model as the user named it."""
    weights: str
    """Digest of the model's tensors."""
    tokenizer: str | None
    """The tokenizer as the user named it; None for the run's own."""
    model: dict[str, Any]
    """The architecture."""
    dim: int
    """D."""
    format: Format
    """Of the parts."""
    dtype: Stored
    """Of means and log variances."""
    settings: dict[str, Any]
    """What else the numbers depend on."""
    plan: list[dict[str, Any]]
    """What each part is made of."""
    complete: bool = False
    """Whether every part is there."""
    parts: list[str] = field(default_factory=list)
    """Files, by kind and number."""
    rows: dict[str, int] = field(default_factory=dict)
    """Rows by kind."""
    bad: int = 0
    """Samples that could not be used."""
    bad_samples: list[str] = field(default_factory=list)
    """The first of those of each part."""
    run: dict[str, float] = field(default_factory=dict)
    """What the last run did: samples, seconds, share of the time that it waited for data, processes."""

    def write(self, folder: Path) -> None:
        """Writes manifest.json, as a whole."""
        write_whole(folder / MANIFEST, json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The manifest of a folder of embeddings.

        Raises:
            ValueError: there is none, or it is not one of this version.
        """
        path = folder / MANIFEST
        if not path.is_file():
            raise ValueError(f"{folder} has no {MANIFEST}: it is no folder that `prolip embed` wrote")
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} is no manifest of embeddings: {error}") from error


def complete_parts(folder: Path, kind: Kind) -> tuple[Manifest, list[Part]]:
    """The manifest of a finished folder, and its parts of a kind in order.

    Raises:
        ValueError: the embeddings are not finished, or hold nothing of that kind.
    """
    manifest = Manifest.read(folder)
    if not manifest.complete:
        raise ValueError(f"{folder} is not finished: run `prolip embed` with the same settings to go on")
    parts = [Part(folder / name) for name in manifest.parts if name.startswith(f"{kind}-")]
    if not parts:
        held = " and ".join(f"{name} embeddings" for name in manifest.rows) or "nothing"
        raise ValueError(f"{folder} holds {held}, no {kind} embeddings")
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
    # Embeddings do not compress: plain pages are read as fast as the disk gives them.
    parquet().write_table(
        table, path, row_group_size=_ROW_GROUP, compression="none", use_dictionary=["source"], write_statistics=False
    )


def _parquet_notes(path: Path) -> str:
    return str(parquet().read_schema(path).metadata[_NOTES.encode()].decode())


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
    }
    words = {_NOTES: json.dumps(asdict(notes), ensure_ascii=False), "sources": json.dumps(sources, ensure_ascii=False)}
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, path, words)


def _safetensors_notes(path: Path) -> str:
    with safe_open(path, "np") as file:
        return str(file.metadata()[_NOTES])


def _safetensors_blocks(path: Path, columns: Sequence[str], rows: int) -> Iterator[dict[str, Floats]]:
    with safe_open(path, "np") as file:
        slices = {name: file.get_slice(name) for name in columns}
        count = slices["total_var"].get_shape()[0]
        for start in range(0, count, rows):
            end = min(start + rows, count)
            yield {name: each[start:end].astype(np.float32, copy=False) for name, each in slices.items()}
