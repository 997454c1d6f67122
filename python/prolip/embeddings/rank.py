"""Rank embedded samples by uncertainty, or by how well image and caption match (`prolip data rank`).

N rows. Memory is 24 bytes per row; keys and embeddings are read one part or block at a time.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
import torch
from numpy.typing import NDArray

from prolip.decisions.config import NO_CSD
from prolip.embeddings.config import By, Kind, RankOptions
from prolip.embeddings.contact_sheet import SIDE, Cell, Row, contact_sheet
from prolip.embeddings.parquet import parquet, pyarrow
from prolip.embeddings.row_contents import Contents, Name, fetch, fetch_local
from prolip.embeddings.search import described
from prolip.embeddings.storage import ROWS, Block, Manifest, Part, complete_parts
from prolip.errors import UserError, check_at_least
from prolip.files import atomic_file, check_writable, write_atomic
from prolip.gaussian import Gaussian, inclusion_score

COLUMNS = ("key", "source", "score", "rank")
ENDS: dict[By, tuple[str, str]] = {
    "image": ("the most certain images", "the least certain images"),
    "text": ("the most certain captions", "the least certain captions"),
    "inclusion": ("images that lie deepest inside their captions", "images that lie least inside their captions"),
    "csd": ("images nearest to their captions", "images farthest from their captions"),
}
"""Titles of the first and of the last samples."""


_UNKNOWN = Contents(None, None)


class Chunk(NamedTuple):
    """Consecutive rows of a ranking."""

    keys: list[str]
    sources: list[str]
    scores: NDArray[np.float32]
    ranks: NDArray[np.int64]
    """Ranks in the whole ranking, from 1."""


def run_rank(options: RankOptions) -> list[str]:
    """Rank, write the files, and return lines with the first and last samples.

    Raises:
        UserError: the embeddings are not finished or lack the items to rank, or the table's format is unknown.
        OSError: a file cannot be written; see `check_writable`.
    """
    write = table_format(options.out)
    check_at_least(0, show=options.show)
    if options.sheet is not None and options.sheet.absolute() == options.out.absolute():
        raise UserError(f"sheet is {options.sheet}: it must be another file than out, the ranking")
    for file in (options.out, options.sheet):
        if file is not None:
            check_writable(file)
    groups = part_groups(options.embeddings, options.by)
    manifest = Manifest.read(options.embeddings)
    if not manifest.has_variances and options.by != "csd":
        raise UserError(f"by is {options.by}: {manifest.checkpoint} has no variances, so only --by csd is possible")
    if manifest.epistemic and options.by in {"inclusion", "csd"}:
        raise UserError(f"by is {options.by}: {NO_CSD}; rank by image or text")
    scores = np.concatenate([_scores(group, options.by) for group in groups])
    order = np.argsort(-scores if options.by == "inclusion" else scores, kind="stable")
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(1, len(order) + 1)
    ends = {*order[: options.show].tolist(), *order[max(0, len(order) - options.show) :].tolist()}
    shown: dict[int, tuple[str, str, float]] = {}

    def chunks() -> Iterator[Chunk]:
        start = 0
        for group in groups:
            keys, sources = group[0].names()
            rows = slice(start, start + len(keys))
            for row in sorted(ends):
                if rows.start <= row < rows.stop:
                    shown[int(ranks[row])] = (sources[row - start], keys[row - start], float(scores[row]))
            yield Chunk(keys, sources, scores[rows], ranks[rows])
            start = rows.stop

    write(options.out, chunks(), {"by": options.by, "embeddings": str(options.embeddings)})
    names = sorted((source, key) for source, key, _ in shown.values())
    caption_key = manifest.settings["caption_key"]
    if options.sheet is None:  # only from this machine, since a remote shard would have to be downloaded
        contents = fetch_local(names, options.store, caption_key)
    else:
        contents = fetch(names, SIDE, options.store, caption_key)
        write_atomic(options.sheet, _sheet(options, shown, contents, len(order)))
    return _summary(options, shown, contents, len(order))


def part_groups(folder: Path, by: By) -> list[tuple[Part, ...]]:
    """Return the parts that a ranking reads together: of images, of captions, or pairs of both.

    Raises:
        UserError: the embeddings are not finished, or lack the items to rank.
    """
    if by in {"image", "text"}:
        kind: Kind = "image" if by == "image" else "text"
        other = "text" if kind == "image" else "image"
        return [(part,) for part in complete_parts(folder, kind, instead=f"rank them with --by {other}")[1]]
    both = [complete_parts(folder, kind, instead="embed with --what both")[1] for kind in ("image", "text")]
    images, texts = ({part.notes.number: part for part in parts} for parts in both)
    if not images.keys() & texts.keys():
        raise UserError(f"{folder} holds images and captions, but not of the same samples: embed with --what both")
    return [(images[number], texts[number]) for number in sorted(images.keys() & texts.keys())]


def _scores(group: tuple[Part, ...], by: By) -> NDArray[np.float32]:
    """Return the scores of a part's rows, [N]."""
    paired = by in {"inclusion", "csd"}
    streams = [part.blocks(ROWS, log_var=paired) for part in group]
    found = [np.zeros(0, np.float32)]
    for blocks in zip(*streams, strict=True):
        if not paired:
            found.append(blocks[0].total_var)
            continue
        image, text = (_gaussian(block) for block in blocks)
        if by == "inclusion":
            found.append(inclusion_score(image, text).sum(1).numpy())
        else:
            distance = (image.mean - text.mean).square().sum(1).numpy()
            found.append(distance + blocks[0].total_var + blocks[1].total_var)
    return np.concatenate(found)


def _gaussian(block: Block) -> Gaussian:
    assert block.log_var is not None
    return Gaussian(torch.tensor(block.mean), torch.tensor(block.log_var))


def _summary(
    options: RankOptions, shown: dict[int, tuple[str, str, float]], contents: Mapping[Name, Contents], count: int
) -> list[str]:
    lines = [f"{options.out}: {count:,} samples ranked"]
    for title, ranks in zip(ENDS[options.by], _ends(shown, options.show, count), strict=True):
        lines += ["", f"{title}:" if ranks else ""]
        for rank in ranks:
            source, key, score = shown[rank]
            found = contents.get((source, key), _UNKNOWN)
            lines.append(f"  {rank:>9,}  {score:12.5f}  {key}  {described(source, found.file, found.caption)}")
    return lines if options.show else lines[:1]


def _ends(shown: dict[int, tuple[str, str, float]], show: int, count: int) -> tuple[list[int], list[int]]:
    """Return the first ranks in ascending order, and the last ranks in descending order."""
    ranks = sorted(shown)
    return [rank for rank in ranks if rank <= show], [rank for rank in reversed(ranks) if rank > count - show]


def _sheet(
    options: RankOptions, shown: dict[int, tuple[str, str, float]], contents: Mapping[Name, Contents], count: int
) -> str:
    rows = []
    for title, ranks in zip(ENDS[options.by], _ends(shown, options.show, count), strict=True):
        cells = []
        for rank in ranks:
            source, key, score = shown[rank]
            cells.append(Cell(key, contents.get((source, key)), [f"rank {rank:,}, score {score:.5f}", source]))
        rows.append(Row(title, None, cells))
    return contact_sheet(f"{options.embeddings.name}: ranked by {options.by}", rows)


# ---- The table ------------------------------------------------------------------------------------------------------


Write = Callable[[Path, Iterable[Chunk], dict[str, Any]], None]


def table_format(path: Path) -> Write:
    """Return the function that writes a table to this path.

    Raises:
        UserError: the name ends in neither .parquet nor .csv.
    """
    if path.suffix not in {".parquet", ".csv"}:
        raise UserError(f"{path}: a ranking is a .parquet or a .csv file")
    return _write_parquet if path.suffix == ".parquet" else _write_csv


def _write_parquet(path: Path, chunks: Iterable[Chunk], notes: dict[str, Any]) -> None:
    pa = pyarrow()
    source = pa.dictionary(pa.int32(), pa.string())
    types = dict(zip(COLUMNS, (pa.string(), source, pa.float32(), pa.int64()), strict=True))
    schema = pa.schema(types.items(), metadata={"prolip": json.dumps(notes)})
    with atomic_file(path) as temporary, parquet().ParquetWriter(temporary, schema) as writer:
        for chunk in chunks:
            columns = [pa.array(values) for values in chunk]
            columns[1] = columns[1].cast(pa.string()).dictionary_encode().cast(source)
            writer.write_table(pa.table(dict(zip(COLUMNS, columns, strict=True)), schema=schema))


def _write_csv(path: Path, chunks: Iterable[Chunk], notes: dict[str, Any]) -> None:
    del notes  # CSV files have no metadata
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for chunk in chunks:
            writer.writerows(
                zip(chunk.keys, chunk.sources, map(str, chunk.scores.tolist()), chunk.ranks.tolist(), strict=True)
            )


def read_ranking(path: Path) -> Iterator[Chunk]:
    """Read the rows of a ranking in order, some thousands at a time.

    Raises:
        UserError: the file is not a ranking.
    """
    table_format(path)
    if path.suffix == ".parquet":
        parquet()  # raises if pyarrow is missing, which is not the file's fault
    try:
        if path.suffix == ".csv":
            with path.open(encoding="utf-8", newline="") as file:
                yield from _read_csv(file)
        else:
            with parquet().ParquetFile(path, memory_map=True) as table:
                for batch in table.iter_batches(batch_size=ROWS, columns=list(COLUMNS)):
                    keys, sources, scores, ranks = (batch.column(name) for name in COLUMNS)
                    yield Chunk(keys.to_pylist(), sources.to_pylist(), scores.to_numpy(), ranks.to_numpy())
    except FileNotFoundError as error:
        raise UserError(f"ranking: there is no {path}: prolip data rank writes one") from error
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a ranking by `prolip data rank`: {error}") from error


def _read_csv(file: TextIO) -> Iterator[Chunk]:
    rows: list[tuple[str, str, float, int]] = []

    def chunk() -> Chunk:
        keys, sources, scores, ranks = zip(*rows, strict=True) if rows else ((), (), (), ())
        return Chunk(list(keys), list(sources), np.array(scores, np.float32), np.array(ranks, np.int64))

    reader = csv.DictReader(file)
    if not {*COLUMNS} <= {*(reader.fieldnames or ())}:
        raise UserError(f"its columns are not {', '.join(COLUMNS)}")
    for row in reader:
        rows.append((row["key"], row["source"], float(row["score"]), int(row["rank"])))
        if len(rows) == ROWS:
            yield chunk()
            rows.clear()
    yield chunk()
