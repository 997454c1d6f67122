"""The files of embeddings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from prolip.embeddings.storage import Manifest, Part, PartNotes, Rows, complete_parts, write_part
from prolip.errors import UserError

ROWS = Rows(
    ["a", "ü 1", ""],
    ["tar/0.tar", "日本/1.tar", "tar/0.tar"],
    np.arange(6, dtype=np.float32).reshape(3, 2),
    np.zeros((3, 2), np.float32),
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
    with pytest.raises(UserError) as error:
        read(Part(path))
    assert error.value.field == str(path)
    path.unlink()
    with pytest.raises(UserError) as error:
        read(Part(path))
    assert error.value.field == str(path)


def test_parquet_embeddings_of_an_older_version_open_and_others_are_refused(lab: Path, tmp_path: Path) -> None:
    shutil.copytree(lab / "out", tmp_path / "out")
    path = tmp_path / "out" / "manifest.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {"format": "parquet"}))
    assert complete_parts(tmp_path / "out", "image")[0] == Manifest.read(lab / "out")
    for text in (json.dumps(stored | {"format": "safetensors"}), "{", "[]", '{"a": 1}'):
        path.write_text(text)
        with pytest.raises(UserError) as error:
            Manifest.read(tmp_path / "out")
        assert error.value.field == str(path)
    with pytest.raises(UserError) as error:
        complete_parts(tmp_path, "image")
    assert error.value.field == str(tmp_path)
