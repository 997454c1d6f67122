"""The files of embeddings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.refusals import refusal_of

from prolip.embeddings.storage import Manifest, Part, PartNotes, Rows, Settings, complete_parts, write_part
from prolip.errors import UserError

ROWS = Rows(
    ["a", "ü 1", ""],
    ["tar/0.tar", "日本/1.tar", "tar/0.tar"],
    np.arange(6, dtype=np.float32).reshape(3, 2),
    np.zeros((3, 2), np.float32),
)
MANIFEST = Manifest(
    checkpoint="model",
    weights="",
    tokenizer=None,
    model={},
    dim=2,
    dtype="float32",
    settings=Settings(what="image", caption_key="txt", precision="fp32"),
    plan=[],
)
NOTES = PartNotes(number=0, kind="image", rows=3, bad=1, named=("one",))


def test_a_part_is_written_equal_every_time_and_read_back(tmp_path: Path) -> None:
    files = [write_part(tmp_path, ROWS, NOTES).read_bytes() for _ in range(3)]
    assert set(files) == {files[0]}
    part = Part(tmp_path / "image-000000.parquet")
    assert part.names() == (ROWS.keys, ROWS.sources)
    assert part.notes == NOTES
    (block,) = part.blocks(log_var=True)
    np.testing.assert_array_equal(block.mean, ROWS.mean)
    np.testing.assert_array_equal(block.total_var, [2, 2, 2])


@pytest.mark.parametrize("read", [Part.names, lambda part: list(part.blocks()), lambda part: part.notes])
def test_a_part_that_is_damaged_or_missing_is_named(read: Callable[[Part], object], tmp_path: Path) -> None:
    path = write_part(tmp_path, ROWS, NOTES)
    path.write_bytes(path.read_bytes()[:-40])
    with refusal_of(str(path)):
        read(Part(path))
    path.unlink()
    with refusal_of(str(path)):
        read(Part(path))


def read(part: Part) -> object:
    """All that can be read of a part, comparable."""
    return part.notes, part.names(), [[str(values) for values in block] for block in part.blocks(log_var=True)]


def test_damage_is_noticed(tmp_path: Path) -> None:
    part = Part(write_part(tmp_path, ROWS, NOTES))
    intact, expected = part.path.read_bytes(), read(part)
    for place in range(0, len(intact), 5):
        damaged = bytearray(intact)
        damaged[place] ^= 1 << place % 8
        part.path.write_bytes(damaged)
        with suppress(UserError):
            part.check(MANIFEST)
            assert read(part) == expected, place
    with pytest.raises(UserError):
        read(Part(write_part(tmp_path, ROWS, replace(NOTES, rows=2))))


def test_a_part_with_a_wrong_column_is_named(tmp_path: Path) -> None:
    part = Part(write_part(tmp_path, ROWS, NOTES))
    table = pq.read_table(part.path)
    nan = {"mean": [[0, np.nan]] * 3, "log_var": [[0, np.nan]] * 3, "total_var": [np.nan] * 3}
    for place, (name, kind) in enumerate(zip(table.column_names, table.schema.types, strict=True)):
        spoilt = [pa.array([1, 2, 3]), pa.array([None] * 3, kind)]
        spoilt += [pa.array(nan[name], kind)] if name in nan else []
        for wrong in [table.drop_columns(name), *(table.set_column(place, name, values) for values in spoilt)]:
            pq.write_table(wrong, part.path)
            with pytest.raises(UserError, match=name) as error:
                part.check(MANIFEST), read(part)
            assert error.value.field == str(part.path)
    pq.write_table(table.set_column(0, "key", pa.array([None] * 3, pa.string())), part.path)
    with pytest.raises(UserError):
        part.row(0)
    pq.write_table(table, part.path, row_group_size=2)
    assert [part.row(row)["key"] for row in range(3)] == ROWS.keys, "row groups may have any size"


def test_parquet_embeddings_of_an_older_version_open_and_others_are_refused(lab: Path, tmp_path: Path) -> None:
    shutil.copytree(lab / "out", tmp_path / "out")
    path = tmp_path / "out" / "manifest.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {"format": "parquet"}))
    assert complete_parts(tmp_path / "out", "image")[0] == Manifest.read(lab / "out")
    wrong = [{"format": "safetensors"}, {"settings": {}}, {"dim": "2"}, {"dtype": "int8"}, {"parts": 3}, {"rows": [1]}]
    for text in (*(json.dumps(stored | some) for some in wrong), "{", "[]", '{"a": 1}'):
        path.write_text(text)
        with refusal_of(str(path)):
            Manifest.read(tmp_path / "out")
    with refusal_of(str(tmp_path)):
        complete_parts(tmp_path, "image")
