"""Raw samples of shards."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.shards import encoded, write_tar

from prolip.data import DataError, StoreConfig
from prolip.data.samples import read_members, read_samples


def test_samples_with_images_are_read_in_order_with_the_given_members(tmp_path: Path) -> None:
    first, second = encoded((9, 9, 9)), encoded((200, 0, 0))
    members = [("a.png", second), ("a.jpg", first), ("a.txt", b"one"), ("b.txt", b"no image"), ("c.webp", b"broken")]
    write_tar(tmp_path / "0.tar", members)
    found = list(read_samples(str(tmp_path / "0.tar"), ("txt", "json"), StoreConfig()))
    assert found == [("a", first, {"txt": b"one", "json": None}), ("c", b"broken", {"txt": None, "json": None})]


def test_read_members_returns_members_without_images(tmp_path: Path) -> None:
    members = [("a.png", encoded((9, 9, 9))), ("a.txt", b"one"), ("b.png", b"broken"), ("b.json", b"{}")]
    write_tar(tmp_path / "0.tar", members)
    assert list(read_members(str(tmp_path / "0.tar"), ("txt", "json", "txt"), StoreConfig())) == [
        ("a", {"txt": b"one", "json": None}),
        ("b", {"txt": None, "json": b"{}"}),
    ]


def test_an_empty_archive_has_no_samples_and_another_file_is_an_error(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [])
    assert list(read_samples(str(tmp_path / "0.tar"), (), StoreConfig())) == []
    (tmp_path / "1.tar").write_bytes(b"no archive" * 100)
    with pytest.raises((ValueError, DataError), match=r"1\.tar"):
        list(read_samples(str(tmp_path / "1.tar"), (), StoreConfig()))
