"""Write shards from a table. Columns other than image and caption go into the JSON."""

import csv
from collections.abc import Iterator
from pathlib import Path

from prolip.build.config import CsvConfig
from prolip.build.images import Candidate, write_images
from prolip.build.shards import BuildSummary
from prolip.errors import UserError, check


def build_csv(config: CsvConfig, out: Path) -> BuildSummary:
    """Write shards to `out` from the rows of `config.table`.

    Raises:
        UserError: the table cannot be read, lacks a column or has a row of another length; too many images are bad;
            or `out` holds other files.
    """
    check(config.table.is_file(), "table", "must be a file", config.table)
    try:
        candidates = list(_read_rows(config))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError("table", "must be a .csv or .tsv file in UTF-8", f"{config.table}: {error}") from error
    check(candidates, "table", "must have a row below the header", config.table)
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
        rows = csv.DictReader(file, delimiter=delimiter, strict=True)
        columns = list(rows.fieldnames or ())
        for field in ("image_column", "caption_column"):
            if getattr(config, field) not in columns:
                raise UserError(
                    field,
                    f"must be a column of {config.table}, which has {', '.join(columns)}; name one, or set --delimiter",
                    getattr(config, field),
                )
        if len(set(columns)) < len(columns):
            raise UserError("table", "must have columns of different names", ", ".join(columns))
        for row in rows:
            name = f"{config.table.name} line {rows.line_num}"
            if None in row or None in row.values():
                raise UserError("table", f"{name} must have {len(columns)} columns, as the first line")
            caption = row.pop(config.caption_column).strip()
            image = row[config.image_column].strip()
            empty = config.caption_column if image else config.image_column
            problem = "" if image and caption else f"column {empty!r} is empty"
            label = name if problem else f"{name}: {image}"
            yield Candidate(label, config.table.parent / image, image, [caption], row, problem)
