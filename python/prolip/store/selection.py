"""Selections: which samples of which sources to read, as one small Parquet file. R rows of a source.

Any reader of Parquet can read or make one. It has a row per source, in the order of the data: `source` (a shard, a
folder of images or a text file, without secrets), `stamp` (of its samples' places at that time), `rows` (a list of
uint32) and `repeats` (a list of uint16, or null).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from prolip.errors import UserError, check
from prolip.store.atomic_writes import atomic_file
from prolip.store.folder import folder_of

_SCHEMA = pa.schema(
    {"source": pa.string(), "stamp": pa.string(), "rows": pa.list_(pa.uint32()), "repeats": pa.list_(pa.uint16())}
)
_AT_ONCE = 1 << 20
"""Samples written together, so that memory does not grow with a selection."""


class Chosen(NamedTuple):
    """Of one source."""

    source: str
    stamp: str
    """Differs if samples come or go, but not if contents of the same length replace others; "" if unknown."""
    rows: NDArray[np.uint32]
    """[R], places in the source from 0, ascending."""
    repeats: NDArray[np.uint16] | None = None
    """[R], how often an epoch reads each; None for once."""


def write_selection(path: str | Path, chosen: Iterable[Chosen]) -> int:
    """Write a selection atomically; returns its number of samples. Sources without one are left out.

    Args:
        path: a local file, or its address in a store (`prolip.store.folder`).
    """
    count, written, waiting = 0, 0, list[Chosen]()
    encodings = {"rows.list.element": "DELTA_BINARY_PACKED", "repeats.list.element": "PLAIN"}
    with (
        _local_file(str(path)) as temporary,
        pq.ParquetWriter(
            temporary,
            _SCHEMA,
            compression="zstd",
            use_dictionary=False,
            column_encoding=encodings,
            write_page_checksum=True,
        ) as writer,
    ):

        def write() -> None:
            nonlocal written
            columns: list[Any] = list(zip(*waiting, strict=True)) or [()] * len(_SCHEMA)
            writer.write_table(pa.table(list(map(list, columns)), schema=_SCHEMA))
            waiting.clear()
            written = count

        for one in chosen:
            if len(one.rows):
                count += len(one.rows)
                waiting.append(one)
            if count - written >= _AT_ONCE:
                write()
        write()
    return count


@contextmanager
def _local_file(address: str) -> Iterator[Path]:
    """Yield a temporary file that replaces the one at the address."""
    folder, name = folder_of(address)
    if not folder.is_remote:
        with atomic_file(Path(address)) as temporary:
            yield temporary
        return
    with TemporaryDirectory() as local:
        yield (temporary := Path(local, name))
        folder.write(name, pa.memory_map(str(temporary)).read_buffer())


def read_selection(path: str | Path, having: str = "") -> Iterator[Chosen]:
    """Read a selection, source by source.

    Args:
        path: a local file, or its address in a store.
        having: skip row groups without this source.

    Raises:
        UserError: the file is missing or is not a selection, or a source occurs twice.
    """
    folder, name = folder_of(str(path))
    seen = set[str]()
    try:
        with folder.open(name) as stream, pq.ParquetFile(stream, page_checksum_verification=True) as file:
            for group in range(file.num_row_groups):
                if having and having not in file.read_row_group(group, ["source"])[0].to_pylist():
                    continue
                batch = file.read_row_group(group, _SCHEMA.names)
                if batch.schema.types != _SCHEMA.types or any(batch[name].null_count for name in _SCHEMA.names[:3]):
                    raise ValueError(f"must have the columns {_SCHEMA}, all but repeats filled")
                columns = {name: batch[name] for name in _SCHEMA.names}
                for source, stamp, rows, repeats in zip(*columns.values(), strict=True):
                    one = Chosen(source.as_py(), stamp.as_py(), _numbers(rows), _numbers(repeats))
                    if (np.diff(one.rows.astype(np.int64)) <= 0).any():
                        raise ValueError(f"rows of {one.source}: must ascend")
                    if one.repeats is not None and (len(one.repeats) != len(one.rows) or not one.repeats.all()):
                        raise ValueError(f"repeats of {one.source}: must be positive, one for each row")
                    if one.source in seen:
                        raise ValueError(f"{one.source}: must occur once")
                    seen.add(one.source)
                    yield one
    except FileNotFoundError as error:
        raise UserError("selection", "must be a file", path) from error
    except (pa.ArrowException, KeyError, OSError, ValueError) as error:
        raise UserError("selection", "must be a file that `prolip data select` wrote", f"{path}: {error}") from error


def _numbers(scalar: Any) -> Any:
    if scalar.values is not None and scalar.values.null_count:
        raise ValueError("rows and repeats: must be numbers")
    return None if scalar.values is None else scalar.values.to_numpy(zero_copy_only=False)


def combine(
    first: Iterable[Chosen], second: Iterable[Chosen], how: Literal["and", "or", "without"]
) -> Iterator[Chosen]:
    """Combine two selections: samples of both, of any, or of the first without the second.

    A sample that both choose is repeated as often as the one that repeats it less (`and`) or more (`or`). Sources that
    only the second has come last.

    Raises:
        UserError: a source changed between them.
    """
    rest, passed = iter(second), dict[str, Chosen]()
    for one in first:
        # Usually both have the same sources in the same order, so that one is in memory.
        while one.source not in passed and (other := next(rest, None)) is not None:
            passed[other.source] = other
        other = passed.pop(one.source, Chosen(one.source, one.stamp, np.zeros(0, np.uint32)))
        check(
            len({one.stamp, other.stamp} - {""}) <= 1,
            "selection",
            f"{one.source} must be unchanged; it differs between the selections",
        )
        counts = [np.ones(len(each.rows), np.uint16) if each.repeats is None else each.repeats for each in (one, other)]
        rows = np.union1d(one.rows, other.rows)
        mine, theirs = np.zeros((2, len(rows)), np.uint16)
        mine[np.searchsorted(rows, one.rows)], theirs[np.searchsorted(rows, other.rows)] = counts
        repeats = {"and": np.minimum(mine, theirs), "or": np.maximum(mine, theirs), "without": mine * (theirs == 0)}[
            how
        ]
        kept = repeats > 0
        yield Chosen(one.source, one.stamp or other.stamp, rows[kept], None if (repeats <= 1).all() else repeats[kept])
    if how == "or":
        yield from (*passed.values(), *rest)
