"""Rank embedded samples by uncertainty, or by how well image and caption match (`prolip data rank`). N rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from pyarrow import csv

from prolip.decisions.config import NO_CSD
from prolip.embeddings.config import By, Kind, RankOptions
from prolip.embeddings.contact_sheet import SIDE, Cell, Row, contact_sheet
from prolip.embeddings.row_contents import Contents, fetch
from prolip.embeddings.search import described
from prolip.embeddings.storage import Block, Manifest, Part, complete_parts, paired_parts
from prolip.errors import UserError, check_at_least, printable
from prolip.files import atomic_file, check_writable, write_atomic
from prolip.folders import Folder
from prolip.gaussian import Gaussian, inclusion_score

_COLUMNS = pa.schema({"key": pa.string(), "source": pa.string(), "score": pa.float32(), "rank": pa.int64()})
_ENDS: dict[By, tuple[str, str]] = {
    "image": ("the most certain images", "the least certain images"),
    "text": ("the most certain captions", "the least certain captions"),
    "inclusion": ("images that lie deepest inside their captions", "images that lie least inside their captions"),
    "csd": ("images nearest to their captions", "images farthest from their captions"),
}


def run_rank(options: RankOptions) -> list[str]:
    """Rank, write the table and the sheet, and return lines with the first and last samples.

    Raises:
        UserError: the embeddings are not finished or lack the items to rank, or `out` is not a .csv file.
        OSError: a file cannot be written; see `check_writable`.
    """
    if options.out.suffix != ".csv":
        raise UserError(f"out: must be a .csv file (got {options.out})")
    check_at_least(0, show=options.show)
    for file in (options.out, options.sheet):
        if file is not None:
            check_writable(file)
    folder = Folder(str(options.embeddings))
    manifest = Manifest.read(folder)
    if not manifest.has_variances and options.by != "csd":
        raise UserError(f"by: must be csd for a model without variances (got {options.by})")
    if manifest.epistemic and options.by in {"inclusion", "csd"}:
        raise UserError(f"by: must be image or text; {NO_CSD} (got {options.by})")
    groups = _part_groups(folder, options.by)
    scores = np.concatenate([_scores(group, options.by) for group in groups])
    order = np.argsort(-scores if options.by == "inclusion" else scores, kind="stable")
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(1, len(order) + 1)
    ends = order[: options.show].tolist(), order[::-1][: options.show].tolist()
    names: dict[int, tuple[str, str]] = {}
    start = 0
    with atomic_file(options.out) as temporary, csv.CSVWriter(temporary, _COLUMNS) as writer:
        for group in groups:
            keys, sources = group[0].names()
            rows = slice(start, start + len(keys))
            columns = [keys, sources, scores[rows], ranks[rows]]
            writer.write_table(pa.table(dict(zip(_COLUMNS.names, columns, strict=True)), schema=_COLUMNS))
            names |= {
                row: (sources[row - start], keys[row - start])
                for row in {*ends[0], *ends[1]}
                if start <= row < rows.stop
            }
            start = rows.stop
    caption_key, wanted = manifest.settings.caption_key, sorted(names.values())
    has_sheet = options.sheet is not None
    contents = fetch(wanted, SIDE if has_sheet else None, options.store, caption_key, remote=has_sheet)
    lines, sheet = [f"{options.out}: {len(order):,} samples ranked"], []
    for title, end in zip(_ENDS[options.by], ends, strict=True):
        lines += ["", f"{title}:"] if options.show else []
        cells = []
        for row in end:
            (source, key), rank, score = names[row], ranks[row], scores[row]
            found = contents.get(names[row], Contents(None, None))
            lines.append(
                f"  {rank:>9,}  {score:12.5f}  {printable(key)}  {described(source, found.file, found.caption)}"
            )
            cells.append(Cell(key, contents.get(names[row]), [f"rank {rank:,}, score {score:.5f}", source]))
        sheet.append(Row(title, None, cells))
    if options.sheet is not None:
        write_atomic(options.sheet, contact_sheet(f"{folder.name}: ranked by {options.by}", sheet))
    return lines


def _part_groups(folder: Folder, by: By) -> Sequence[tuple[Part, ...]]:
    """Return the parts that a ranking reads together: of images, of captions, or pairs of both."""
    if by in {"image", "text"}:
        kind: Kind = "image" if by == "image" else "text"
        other = "text" if kind == "image" else "image"
        return [(part,) for part in complete_parts(folder, kind, instead=f"rank them with --by {other}")[1]]
    return paired_parts(folder, log_var=by == "inclusion")


def _scores(group: tuple[Part, ...], by: By) -> NDArray[np.float32]:
    found = [np.zeros(0, np.float32)]
    for blocks in zip(*(part.blocks(log_var=by == "inclusion") for part in group), strict=True):
        if by == "inclusion":
            image, text = (_gaussian(block) for block in blocks)
            found.append(inclusion_score(image, text).sum(1).numpy())
        elif by == "csd":
            distance = np.square(blocks[0].mean - blocks[1].mean).sum(1)
            found.append(distance + blocks[0].total_var + blocks[1].total_var)
        else:
            found.append(blocks[0].total_var)
    return np.concatenate(found)


def _gaussian(block: Block) -> Gaussian:
    assert block.log_var is not None
    return Gaussian(torch.tensor(block.mean), torch.tensor(block.log_var))


def read_ranking(path: Path) -> Any:
    """Read a ranking as a table of pyarrow, with the columns key, source, score and rank.

    Raises:
        UserError: the file is not a ranking.
    """
    try:
        return csv.read_csv(
            path,
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(column_types=_COLUMNS, include_columns=_COLUMNS.names),
        )
    except FileNotFoundError as error:
        raise UserError(f"ranking: must be a file that prolip data rank wrote (got {path})") from error
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"ranking: must be a file that prolip data rank wrote (got {path}: {error})") from error
