"""The files of embeddings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from prolip.embeddings.config import Format
from prolip.embeddings.storage import Part, PartNotes, Rows, write_part
from prolip.errors import UserError


@pytest.mark.parametrize("form", ["parquet", "safetensors"])
def test_a_part_is_written_equal_every_time_and_read_back(form: Format, tmp_path: Path) -> None:
    rows = Rows(
        ["a", "ü 1", ""],
        ["tar/0.tar", "日本/1.tar", "tar/0.tar"],
        np.arange(6, dtype=np.float32).reshape(3, 2),
        np.zeros((3, 2), np.float32),
    )
    notes = PartNotes(number=0, kind="image", rows=3)
    files = [write_part(tmp_path, rows, notes, form, "float32").read_bytes() for _ in range(10)]
    assert set(files) == {files[0]}
    part = Part(tmp_path / f"image-000000.{form}")
    assert part.names() == (rows.keys, rows.sources)
    assert part.notes == notes
    (block,) = part.blocks(log_var=True)
    np.testing.assert_array_equal(block.mean, rows.mean)
    np.testing.assert_array_equal(block.total_var, [2, 2, 2])


@pytest.mark.parametrize("form", ["parquet", "safetensors"])
@pytest.mark.parametrize("read", [Part.names, lambda part: list(part.blocks()), lambda part: part.notes])
def test_a_part_that_is_damaged_or_missing_is_named(
    read: Callable[[Part], object], form: Format, tmp_path: Path
) -> None:
    rows = Rows(["a", "b"], ["0.tar", "0.tar"], np.ones((2, 2), np.float32), np.zeros((2, 2), np.float32))
    path = write_part(tmp_path, rows, PartNotes(number=0, kind="image", rows=2), form, "float32")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=rf"{path.name} is not a part of embeddings: .*; delete it, and `prolip embed`"):
        read(Part(path))
    path.unlink()
    with pytest.raises(UserError, match=rf"{path.name} is missing: `prolip embed` with the same settings makes it"):
        read(Part(path))
