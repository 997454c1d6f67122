"""Classify all images of shards and folders, and write a table with a row for each (`prolip classify --out`)."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow.csv import CSVWriter
from pyarrow.parquet import ParquetWriter
from tqdm import tqdm

from prolip.data import DataError, StoreConfig
from prolip.data.samples import file_name
from prolip.embeddings.config import EmbedOptions
from prolip.embeddings.inputs import NAMED, Input, Started, embed_input, open_input, plan_inputs
from prolip.errors import UserError, check, check_at_least, printable
from prolip.inference.config import ClassifyOptions
from prolip.inference.encoder import Encoder, is_many
from prolip.inference.one_image import open_classifier
from prolip.store.atomic_writes import atomic_file, check_writable

_WRITERS: dict[str, Any] = {".csv": CSVWriter, ".parquet": ParquetWriter}


def run_classify_all(options: ClassifyOptions, out: Path) -> list[str]:
    """Classify the images, write the table, and return the lines to print.

    Each shard, and each part of a folder, is written by itself, so memory does not grow with the number of images.
    """
    check_at_least(1, batch_size=options.batch_size)
    if out.suffix not in _WRITERS:
        raise UserError("out", f"must end in {' or '.join(_WRITERS)}", out)
    check_writable(out)
    inputs = [part for name in (options.image, *options.words) for part in _parts(name)]
    model, _, classify = open_classifier(options, options.labels)
    bad, named = 0, list[str]()

    def tables() -> Iterator[pa.Table]:
        nonlocal bad
        encoder = replace(model.encoder, keep=("json",), batch_size=options.batch_size, on_progress=bar.update)
        for source, started in zip(inputs, _opened_ahead(inputs, encoder), strict=True):
            embedded = embed_input(encoder, source, started)
            rows = embedded.rows
            bad += embedded.bad
            named.extend(embedded.named)
            if not rows.keys:
                continue
            found = classify(rows.gaussian)
            columns: dict[str, Any] = {
                "image": [file_name(*one) or one[0] for one in zip(rows.keys, rows.members["json"], strict=True)],
                "label": found.labels,
                "probability": found.probabilities.amax(dim=1).numpy(),
                "uncertainty": found.uncertainty.numpy() if model.has_variances else None,
                "label_set": found.label_sets and [*map("; ".join, found.label_sets)],
                "answer": found.answers and [answer or "don't know" for answer in found.answers],
                "usual": None if found.usual is None else found.usual.numpy(),
                "source": [source.source] * len(rows.keys),
                "key": rows.keys,
            }
            if out.suffix == ".csv":
                columns |= {name: [*map(_in_csv, columns[name])] for name in ("image", "source", "key")}
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


def _in_csv(name: str) -> str:
    """A name without control characters, and with a ' before what a spreadsheet would take for a formula."""
    return "'" * name.startswith(("=", "+", "-", "@")) + printable(name)


def _opened_ahead(inputs: Sequence[Input], encoder: Encoder) -> Iterator[Started | None]:
    """Yield each input's open shard; a thread opens the next one ahead."""
    opened = partial(open_input, encoder, store=StoreConfig())
    with ThreadPoolExecutor(1, "next-input") as pool:
        following = pool.submit(opened, inputs[0])
        for after in inputs[1:]:
            started = following.result()
            following = pool.submit(opened, after)
            yield started
        yield following.result()


def _parts(name: str) -> list[Input]:
    check(is_many(name), "image", "must be a folder or shards with out; write labels after --labels", name)
    shards, folders = ([], [Path(name)]) if Path(name).is_dir() else ([name], [])
    return plan_inputs(shards, folders, [], EmbedOptions.rows_per_part, StoreConfig())
