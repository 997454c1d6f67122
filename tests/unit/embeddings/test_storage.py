"""The files of embeddings."""

import json
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.refusals import refusal_of

from prolip.embeddings.storage import (
    Manifest,
    Part,
    PartNotes,
    Rows,
    Settings,
    complete_parts,
    paired_parts,
    part_name,
    write_part,
)
from prolip.errors import UserError
from prolip.store.folder import Folder

ROWS = Rows(
    ["a", "ü 1", ""],
    np.array([0, 2, 3], np.uint32),
    np.arange(6, dtype=np.float32).reshape(3, 2),
    np.zeros((3, 2), np.float32),
    np.full((3, 2), 64, np.int32),
)
MANIFEST = Manifest(
    checkpoint="model",
    weights="",
    tokenizer=None,
    model={},
    dim=2,
    dtype="float32",
    logit_scale=10.0,
    logit_bias=None,
    log_var=True,
    settings=Settings(what="image", caption_key="txt", precision="fp32"),
    plan=[],
)
NOTES = PartNotes(number=0, kind="image", source="日本/1.tar", stamp="s", weights="", rows=3, bad=1, named=("one",))


def written(folder, rows, notes):
    return write_part(Folder(str(folder)), rows, notes, "float32", log_var=True)


def test_a_part_is_written_equal_every_time_and_read_back(tmp_path):
    parts = [written(tmp_path, ROWS, NOTES) for _ in range(3)]
    assert parts[0].name == "image-000000.parquet"
    part = Part(parts[0].folder, parts[0].name)
    assert part.names() == (ROWS.keys, [NOTES.source] * 3)
    assert part.notes == NOTES
    (block,) = part.blocks(log_var=True)
    np.testing.assert_array_equal(block.mean, ROWS.mean)
    np.testing.assert_array_equal(block.total_var, [2, 2, 2])
    np.testing.assert_array_equal(block.rows, ROWS.rows)
    assert part.row(1) == {"source": NOTES.source, "row": 2, "key": "ü 1", "mean": [2, 3], "log_var": [0, 0]} | {
        "total_var": 2,
        "width": 64,
        "height": 64,
    }


def read(part):
    """All that can be read of a part and has a checksum or a test, comparable."""
    return part.notes.rows, part.names(), [[str(values) for values in block] for block in part.blocks(log_var=True)]


def test_damage_is_noticed(tmp_path):
    part = written(tmp_path, ROWS, NOTES)
    path = Path(part.path)
    intact, expected = path.read_bytes(), read(part)
    for place in range(0, len(intact), 5):
        damaged = bytearray(intact)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with suppress(UserError):
            assert read(part) == expected, place
    for wrong in (
        written(tmp_path, ROWS, replace(NOTES, number=1, rows=2)),
        replace(written(tmp_path, ROWS, NOTES), count=4),
        replace(part, name="absent"),
    ):
        with refusal_of(wrong.path):
            read(wrong)


@pytest.mark.parametrize("counts", [(3, 2), (2, 3), (3, None)])
def test_images_are_paired_with_as_many_captions(tmp_path, counts):
    parts = {part_name(kind, 0): count for kind, count in zip(("image", "text"), counts, strict=True) if count}
    replace(MANIFEST, complete=True, parts=parts).write(folder := Folder(str(tmp_path)))
    with refusal_of(folder.at("text-000000.parquet") if counts[1] else str(tmp_path)):
        paired_parts(folder)


def test_a_part_with_a_wrong_column_is_named(tmp_path):
    part = written(tmp_path, ROWS, NOTES)
    table = pq.read_table(part.path)
    nan = {"mean": [[0, np.nan]] * 3, "log_var": [[0, np.nan]] * 3, "total_var": [np.nan] * 3}
    for place, (name, kind) in enumerate(zip(table.column_names, table.schema.types, strict=True)):
        spoilt = [pa.array([1, 2, 3]), pa.array([None] * 3, kind)]
        spoilt += [pa.array(nan[name], kind)] if name in nan else []
        for wrong in [table.drop_columns(name), *(table.set_column(place, name, values) for values in spoilt)]:
            pq.write_table(wrong, part.path)
            with refusal_of(part.path):
                read(part), part.row(0)
    pq.write_table(table.set_column(2, "key", pa.array([None] * 3, pa.string())), part.path)
    with pytest.raises(UserError):
        part.row(0)
    pq.write_table(table, part.path, row_group_size=2)
    assert [part.row(row)["key"] for row in range(3)] == ROWS.keys, "row groups may have any size"


def test_embeddings_of_other_versions_are_refused(lab, tmp_path):
    shutil.copytree(lab / "out", tmp_path / "out")
    path = tmp_path / "out" / "manifest.json"
    stored = json.loads(path.read_text())
    older = {name: value for name, value in stored.items() if name != "log_var"}
    wrong = [{"settings": {}}, {"dim": "2"}, {"dtype": "int8"}, {"parts": ["a"]}, {"rows": [1]}]
    for text in (json.dumps(older), *(json.dumps(stored | some) for some in wrong), "{", "[]", '{"a": 1}'):
        path.write_text(text)
        with refusal_of(str(path)):
            Manifest.read(Folder(str(tmp_path / "out")))
    with refusal_of(str(tmp_path)):
        complete_parts(Folder(str(tmp_path)), "image")


def test_log_variances_are_stored_on_request(tmp_path):
    folder = Folder(str(tmp_path))
    part = write_part(folder, ROWS, NOTES)
    assert "log_var" not in part.row(0)
    assert next(part.blocks()).mean.tolist() == ROWS.mean.tolist()
    manifest = replace(MANIFEST, complete=True, parts={part.name: 3}, dtype="float16", log_var=False)
    manifest.write(folder)
    assert complete_parts(folder, "image") == (manifest, [replace(part, count=3)])
    with refusal_of("log_var"):
        complete_parts(folder, "image", log_var=True)
