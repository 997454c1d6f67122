"""Write shards from a table: a column of image paths and a column of captions; other columns go into the JSON."""

import csv
from collections.abc import Iterator
from pathlib import Path

from prolip.data.build.config import CsvConfig
from prolip.data.build.images import Candidate, write_images
from prolip.data.build.shards import BuildSummary
from prolip.errors import UserError


def build_csv(config: CsvConfig, out: Path) -> BuildSummary:
    """Write shards to `out` from the rows of `config.table`.

    Raises:
        UserError: the table cannot be read, lacks a column or has a row of another length; too many images are bad;
            or `out` holds other files.
    """
    if not config.table.is_file():
        raise UserError(f"table: {config.table} is not a file")
    try:
        candidates = list(_read_rows(config))
    except UnicodeDecodeError as error:
        raise UserError(f"table: {config.table} is not in UTF-8: save it as .csv or .tsv in that encoding") from error
    if not candidates:
        raise UserError(f"table: {config.table} has no row below the header")
    description = {
        "kind": "csv",
        "image_column": config.image_column,
        "caption_column": config.caption_column,
        "columns": list(candidates[0].record),
    }
    return write_images(candidates, config, out, description, f"table: {config.table}")


def _read_rows(config: CsvConfig) -> Iterator[Candidate]:
    delimiter = config.delimiter or ("\t" if config.table.suffix.lower() == ".tsv" else ",")
    with config.table.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            columns = next(rows, [])
        except csv.Error as error:
            raise UserError(f"table: {config.table} line 1: {error}: it must be a .csv or .tsv file") from error
        _check_columns(columns, config)
        try:
            for row in rows:
                if row:
                    yield _candidate(f"{config.table.name} line {rows.line_num}", columns, row, config)
        except csv.Error as error:
            raise UserError(f"{config.table.name} line {rows.line_num}: {error}") from error


def _check_columns(columns: list[str], config: CsvConfig) -> None:
    if not columns:
        raise UserError(f"table: {config.table} has no header: its first line must name the columns")
    for field, wanted in (("image_column", config.image_column), ("caption_column", config.caption_column)):
        if wanted not in columns:
            raise UserError(
                f"{field} = {wanted!r}: {config.table} has no such column; it has {', '.join(columns)}: "
                f"name one with --{field}, or set --delimiter"
            )
    if len(set(columns)) < len(columns):
        raise UserError(f"table: {config.table} has two columns with the same name: {', '.join(columns)}")


def _candidate(name: str, columns: list[str], fields: list[str], config: CsvConfig) -> Candidate:
    if len(fields) != len(columns):
        raise UserError(f"{name}: has {len(fields)} columns, the first line has {len(columns)}")
    row = dict(zip(columns, fields, strict=True))
    caption = row.pop(config.caption_column).strip()
    image = row[config.image_column].strip()
    path = config.table.parent / image
    if not image:
        return Candidate(name, path, image, None, row, f"column {config.image_column!r} is empty")
    if not caption:
        return Candidate(name, path, image, None, row, f"column {config.caption_column!r} is empty")
    return Candidate(f"{name}: {image}", path, image, caption, row)
