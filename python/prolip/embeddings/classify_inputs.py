"""Classify all images of shards and folders, and write a table with a row for each (`prolip classify --out`)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow.csv import CSVWriter
from pyarrow.parquet import ParquetWriter
from tqdm import tqdm

from prolip.data import DataError, StoreConfig
from prolip.data.samples import file_name
from prolip.embeddings.config import EmbedOptions
from prolip.embeddings.embed_inputs import NAMED, Embedder, Input, Started, plan_inputs
from prolip.errors import UserError, check, check_at_least
from prolip.files import atomic_file, check_writable
from prolip.gaussian import concatenate
from prolip.inference.config import ClassifyOptions
from prolip.inference.image_batches import is_many
from prolip.inference.one_image import open_classifier

_WRITERS: dict[str, Any] = {".csv": CSVWriter, ".parquet": ParquetWriter}


def run_classify_all(options: ClassifyOptions, out: Path) -> list[str]:
    """Classify the images, write the table, and return the lines to print.

    Memory does not grow with the number of images: each shard, and each part of a folder, is written by itself.

    Raises:
        UserError: the model, a label, an option or an input cannot be used.
        DataError: a shard is not an archive, or no image can be read.
    """
    check_at_least(1, batch_size=options.batch_size)
    if out.suffix not in _WRITERS:
        raise UserError("out", f"must end in {' or '.join(_WRITERS)}", out)
    check_writable(out)
    inputs = [part for name in (options.image, *options.words) for part in _parts(name)]
    model, _, classify = open_classifier(options, options.labels)
    settings = EmbedOptions(
        checkpoint=options.checkpoint, out=str(out), batch_size=options.batch_size, precision=options.precision
    )
    bad, named = 0, list[str]()

    def tables() -> Iterator[pa.Table]:
        nonlocal bad
        embedder = Embedder(settings, model, 0, bar.update, ("json",))
        for source, started in zip(inputs, _opened_ahead(inputs, embedder.open), strict=True):
            rows = embedder.embed(source, started)
            bad += rows.bad
            named.extend(rows.named)
            if not rows.keys:
                continue
            found = classify(concatenate(rows.found["image"]))
            columns: dict[str, Any] = {
                "image": [file_name(*one) or one[0] for one in zip_longest(rows.keys, rows.records)],
                "label": found.labels,
                "probability": found.probabilities.amax(dim=1).numpy(),
                "uncertainty": found.uncertainty.numpy() if model.has_variances else None,
                "label_set": found.label_sets and [*map("; ".join, found.label_sets)],
                "answer": found.answers and [answer or "don't know" for answer in found.answers],
                "usual": None if found.usual is None else found.usual.numpy(),
                "source": [source.source] * len(rows.keys),
                "key": rows.keys,
            }
            yield pa.table({name: column for name, column in columns.items() if column is not None})

    with tqdm(desc="classified", unit="image", file=sys.stderr) as bar, atomic_file(out) as temporary:
        rest = tables()
        first = next(rest, None)
        if first is None:
            raise DataError(f"no image can be read: {'; '.join(named[:NAMED])}")
        with _WRITERS[out.suffix](temporary, first.schema) as writer:
            for table in chain([first], rest):
                writer.write_table(table)
    return [f"classified: {bar.n:,} images; unreadable: {bad:,}", *named[:NAMED]]


def _opened_ahead(inputs: Sequence[Input], open_input: Callable[[Input], Started | None]) -> Iterator[Started | None]:
    """Yield what `open_input` returns for each input; a thread opens the next one meanwhile."""
    with ThreadPoolExecutor(1, "next-input") as pool:
        following = pool.submit(open_input, inputs[0])
        for after in inputs[1:]:
            opened = following.result()
            following = pool.submit(open_input, after)
            yield opened
        yield following.result()


def _parts(name: str) -> list[Input]:
    check(is_many(name), "image", "must be a folder or shards with out; write labels after --labels", name)
    shards, folders = ([], [Path(name)]) if Path(name).is_dir() else ([name], [])
    return plan_inputs(shards, folders, [], EmbedOptions.rows_per_part, StoreConfig())
