"""Bring in embeddings that another program computed, as a folder (`prolip import`). N rows, D dimensions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from prolip.embeddings.config import ImportOptions, Kind
from prolip.embeddings.originals import read_lines
from prolip.embeddings.storage import MANIFEST, Floats, Manifest, PartNotes, Rows, Settings, part_name, write_part
from prolip.errors import UserError, check, check_at_least
from prolip.gaussian import Gaussian
from prolip.inference.load_model import load
from prolip.inference.model import weights_digest
from prolip.models.adapter import AdaptedNetwork, Adapter
from prolip.pretrained.sources import absolute_source, resolve
from prolip.store.folder import Folder

_BLOCK = 8192
_COUNTED = 1024
"""Rows whose products with a bank of 4,096 fit into a cache."""
_UNIT = 1e-2
"""Difference of a norm from 1 that half precision may make."""
_KEYS = ("key", "image_path", "url")
"""Columns of the metadata that name rows, the first that is there."""


class _Maker(NamedTuple):
    """What made the vectors, as far as it is known."""

    source: str | None
    weights: str
    logit_scale: float
    logit_bias: float | None
    adapter: Adapter | None = None
    dim: int | None = None


class _Lengths:
    """Counts rows that are not of unit norm."""

    def __init__(self) -> None:
        self.rows = self.others = 0

    def unit(self, rows: Any, path: Path, start: int) -> Floats:
        """Rows [N, D] of a file from row `start` on, of unit norm; a UserError names the first unusable row."""
        check(rows.ndim == 2 and rows.dtype.kind == "f", path, "must be floats [N, D]", f"{rows.dtype} {rows.shape}")
        values = rows.astype(np.float32)
        norm = np.linalg.norm(values.astype(np.float64), axis=1, keepdims=True)
        wrong = ~(np.isfinite(norm) & (norm > 0))[:, 0]
        if wrong.any():
            place = int(wrong.argmax())
            raise UserError(f"{path} row {start + place}", "must be finite and not 0", f"norm {norm[place, 0]:.3g}")
        self.rows, self.others = self.rows + len(norm), self.others + int((abs(norm - 1.0) > _UNIT).sum())
        found: Floats = (values / norm).astype(np.float32)
        return found


def run_import(options: ImportOptions) -> list[str]:
    """Write the vectors as a folder of embeddings, and return the lines to print.

    Raises:
        UserError: a file is no vectors, a row is not finite or is 0, the files differ in rows or dimensions, `out`
            exists, or the model is not of this dimension.
    """
    check(options.image or options.text, "image", "must be given, or --text")
    check_at_least(1, rows_per_part=options.rows_per_part)
    check(0 < options.logit_scale < np.inf, "logit_scale", "must be finite and above 0", options.logit_scale)
    out = Folder(options.out)
    out.check_own(MANIFEST)
    check(not out.exists(MANIFEST), "out", "must be a new folder", options.out)
    maker, lengths, size = _maker(options), _Lengths(), options.rows_per_part
    given: dict[Kind, Sequence[Path]] = {"image": options.image, "text": options.text}
    kinds: list[Kind] = [kind for kind, paths in given.items() if paths]
    streams = [_chunks(_vectors(given[kind], kind, lengths), size, np.concatenate) for kind in kinds]
    names = [_chunks(_metadata(options), size, pa.concat_tables)] if options.metadata else []
    plan, files, dim = list[dict[str, Any]](), dict[str, int](), maker.dim
    for number, chunks in enumerate(zip_longest(*streams, *names)):
        counts, first = {0 if chunk is None else len(chunk) for chunk in chunks}, number * size
        if len(counts) > 1:
            raise UserError("image, text, metadata", "must have as many rows each", f"one has {first + min(counts)}")
        (count,) = counts
        keys, source = _write_names(out, number, first, count, chunks[-1] if names else pa.table({}), options)
        for kind, mean in zip(kinds, chunks, strict=False):
            dim = dim or mean.shape[1]
            check(mean.shape[1] == dim, kind, f"must have {dim} dimensions, as the model or the others", mean.shape[1])
            gaussian = _gaussians(maker.adapter, kind, torch.from_numpy(mean))
            places, sizes = np.arange(first, first + count, dtype=np.uint32), np.zeros((count, 2), np.int32)
            rows = Rows(keys, places, gaussian.mean.numpy(), gaussian.log_var.numpy(), sizes)
            notes = PartNotes(number=number, kind=kind, source=source, stamp="", weights=maker.weights, rows=count)
            files[write_part(out, rows, notes, options.dtype, log_var=maker.adapter is not None).name] = count
        plan.append({"vectors": [str(path) for kind in kinds for path in given[kind]], "first": first, "count": count})
    check(plan, "image", "must have a row", ", ".join(map(str, (*options.image, *options.text))))
    total = sum(entry["count"] for entry in plan)
    Manifest(
        checkpoint=maker.source,
        weights=maker.weights,
        tokenizer=None,
        model={"network": "unknown"},
        dim=dim or 0,
        dtype=options.dtype,
        log_var=maker.adapter is not None,
        has_variances=maker.adapter is not None,
        logit_scale=maker.logit_scale,
        logit_bias=maker.logit_bias,
        settings=Settings(what="both" if len(kinds) == 2 else kinds[0], caption_key="caption", precision="fp32"),
        plan=plan,
        complete=True,
        parts={name: files[name] for name in sorted(files, key=lambda name: (name[0], len(name), name))},
        rows=dict.fromkeys(kinds, total),
    ).write(out)
    lines = [f"{options.out}: {total:,} {' and '.join(f'{kind}s' for kind in kinds)} of {dim} dimensions"]
    if lengths.others:
        lines.append(f"{lengths.others:,} of {lengths.rows:,} rows were not of unit norm, and are normalised")
    return lines


def _maker(options: ImportOptions) -> _Maker:
    if options.checkpoint is None:
        return _Maker(None, "", options.logit_scale, None)
    known = resolve(options.checkpoint).adapter
    if known is not None and known[1].source is None:
        adapter = known[0]
        scale, bias = float(adapter.logit_scale.detach().exp()), float(adapter.logit_bias.detach())
        return _Maker(None, weights_digest(adapter), scale, bias, adapter, adapter.config.embed_dim)
    model = load(options.checkpoint, device="cpu")
    check(
        isinstance(model.network, AdaptedNetwork) or not model.has_variances,
        "checkpoint",
        "must be a model without variances, or an adapted one: vectors alone have no variances of others",
        options.checkpoint,
    )
    adapted = model.network.adapter if isinstance(model.network, AdaptedNetwork) else None
    source, digest = absolute_source(options.checkpoint), weights_digest(model.network)
    return _Maker(source, digest, model.logit_scale, model.logit_bias, adapted, model.embed_dim)


@torch.no_grad()
def _gaussians(adapter: Adapter | None, kind: Kind, mean: torch.Tensor) -> Gaussian:
    if adapter is None:
        return Gaussian.point(mean)
    head = adapter.image if kind == "image" else adapter.text
    blocks: list[Gaussian] = [head(mean[start : start + _COUNTED]) for start in range(0, len(mean), _COUNTED)]
    return Gaussian(*(torch.cat(column) for column in zip(*blocks, strict=True)))


# ---- Files of other programs ----------------------------------------------------------------------------------------


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    """Files, and the .npy or .parquet files of folders by the numbers in their names."""
    for path in paths:
        if path.is_dir():
            found = [file for file in path.iterdir() if file.suffix in {".npy", ".parquet"}]
            check(found, path, "must have .npy or .parquet files")
            yield from sorted(found, key=lambda file: ([*map(int, re.findall(r"\d+", file.name))], file.name))
        else:
            yield path


def _vectors(paths: Sequence[Path], kind: Kind, lengths: _Lengths) -> Iterator[Floats]:
    """Blocks of vectors of unit norm; .npy files are memory-mapped, .npz files are read whole."""
    for path in _files(paths):
        start = 0
        try:
            for block in _blocks(path, kind):
                yield lengths.unit(block, path, start)
                start += len(block)
        except UserError:
            raise
        except Exception as error:  # a stranger's file can raise anything
            raise UserError(path, f"must hold vectors ({error})") from error


def _blocks(path: Path, kind: Kind) -> Iterator[Any]:
    if path.suffix == ".parquet":
        with pq.ParquetFile(path, memory_map=True) as file:
            for batch in file.iter_batches(batch_size=_BLOCK, columns=[kind]):
                lists = batch.column(kind)
                width = len(lists[0])
                flat = lists.flatten().to_numpy(zero_copy_only=False)
                if lists.null_count or len(flat) != width * len(lists):
                    raise ValueError(f"column {kind} must have vectors of one length")
                yield flat.reshape(-1, width)
        return
    array: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):
        with array as file:
            names = [name for name in (kind, f"{kind}s") if name in file.files] or file.files
            if len(names) != 1:
                raise ValueError(f"needs an array called {kind}; it has {', '.join(file.files)}")
            array = file[names[0]]
    for start in range(0, max(1, len(array)), _BLOCK):
        yield array[start : start + _BLOCK]


def _metadata(options: ImportOptions) -> Iterator[Any]:
    for path in _files(options.metadata):
        if path.suffix == ".txt":
            yield pa.table({"key": read_lines(path)})
            continue
        try:
            with pq.ParquetFile(path, memory_map=True) as file:
                names = file.schema_arrow.names
                key = options.key or next((name for name in _KEYS if name in names), None)
                wanted = {"key": key}
                wanted |= {new: getattr(options, new) for new in ("caption", "label") if getattr(options, new) in names}
                for batch in file.iter_batches(batch_size=_BLOCK, columns=[name for name in wanted.values() if name]):
                    columns = {
                        new: batch.column(name).cast(pa.string()) for new, name in wanted.items() if name is not None
                    }
                    yield pa.table(columns)
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            raise UserError(path, f"must be a Parquet file of names ({error})") from error


def _chunks(blocks: Iterator[Any], size: int, join: Callable[[list[Any]], Any]) -> Iterator[Any]:
    """The rows of blocks in chunks of `size`; the last one may be smaller."""
    held, count = list[Any](), 0
    for block in blocks:
        held.append(block)
        count += len(block)
        while count >= size:
            whole = join(held)
            yield whole[:size]
            held, count = [whole[size:]], count - size
    if count:
        yield join(held)


def _write_names(
    out: Folder, number: int, first: int, count: int, table: Any, options: ImportOptions
) -> tuple[list[str], str]:
    """Write keys and captions of a part's rows, for `originals`; returns the keys and the file's address."""
    columns = {name: table[name] for name in table.column_names}
    keys = columns["key"].to_pylist() if "key" in columns else [*map(str, range(first, first + count))]
    named = [key for key in keys if key is not None]
    check(
        len(named) == count,
        options.key or "key",
        "must be in every row of the metadata",
        f"{count - len(named)} lack it",
    )
    file, name = pa.BufferOutputStream(), part_name("image", number).replace("image", "names")
    pq.write_table(pa.table(columns | {"key": pa.array(named)}), file)
    out.write(name, file.getvalue())
    return named, out.at(name) if out.is_remote else str(Path(out.at(name)).absolute())
