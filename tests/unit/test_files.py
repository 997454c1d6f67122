"""A file takes its place when it is whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from prolip.files import atomic_file, write_atomic


def write_half(path: Path) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text("half")
        assert path.read_text(encoding="utf-8") == "näher"
        raise KeyboardInterrupt


def test_a_file_that_fails_leaves_the_one_before_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    write_atomic(path, "näher")
    assert path.read_bytes() == "näher".encode()
    with pytest.raises(KeyboardInterrupt):
        write_half(path)
    assert path.read_text(encoding="utf-8") == "näher"
    write_atomic(path, "next")
    assert path.read_text() == "next"
    assert list(path.parent.iterdir()) == [path]
