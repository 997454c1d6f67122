"""Atomic file writes; a full disk is one sentence."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.limited import file_limit

from prolip.errors import DiskFullError, UserError
from prolip.store.atomic_writes import atomic_file, atomic_files, check_own_folder, write_atomic
from prolip.store.disk_full import writing
from prolip.store.folder import Folder


def write_half(path):
    with atomic_file(path) as temporary:
        temporary.write_text("half")
        assert path.read_text(encoding="utf-8") == "näher"
        raise KeyboardInterrupt


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "new" / "file.txt"
    write_atomic(path, "näher")
    assert path.read_bytes() == "näher".encode()
    with pytest.raises(KeyboardInterrupt):
        write_half(path)
    assert path.read_text(encoding="utf-8") == "näher"
    write_atomic(path, "next")
    assert path.read_text() == "next"
    assert list(path.parent.iterdir()) == [path]


def test_two_writers_of_a_file_do_not_mix(tmp_path):
    path = tmp_path / "file.txt"
    with atomic_file(path) as first, first.open("w", encoding="utf-8") as slow:
        slow.write("fir")
        write_atomic(path, "second")
        assert path.read_text(encoding="utf-8") == "second"
        slow.write("st")
    assert path.read_text(encoding="utf-8") == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_an_owner_that_wakes_after_another_created_the_file_keeps_it(tmp_path):
    folder = Folder(str(tmp_path))

    def freeze():
        with atomic_file(tmp_path / "file", new=True) as frozen:
            frozen.write_bytes(b"mine")
            assert folder.create("file", b"theirs") == b"theirs"

    with pytest.raises(FileExistsError):
        freeze()
    assert folder.create("file", b"mine") == b"theirs"
    with ThreadPoolExecutor(8) as pool:  # at no moment is it there but empty
        for name in map(str, range(40)):
            contents = [f"{name} {number}".encode() for number in range(8)]
            found = {*pool.map(lambda content, name=name: folder.create(name, content), contents)}
            assert len(found) == 1
            assert found <= {*contents}


def test_what_a_killed_command_left_is_deleted(tmp_path):
    left, below = tmp_path / ".a.0123abcd.tmp", tmp_path / "b" / ".a.0123abcd.tmp"
    left.touch()
    check_own_folder(tmp_path, "mark")
    assert not left.exists()
    below.parent.mkdir()
    below.touch()
    with pytest.raises(UserError):
        check_own_folder(tmp_path, "mark")
    assert below.exists()
    write_atomic(tmp_path / "mark", "")
    with atomic_file(tmp_path / "written now") as living:
        check_own_folder(tmp_path, "mark")
        assert (living.exists(), below.exists()) == (True, False)


NUMBERS = np.zeros(5_000, np.float32)


def write_text(path):
    write_atomic(path, "x" * 20_000)


def write_torch(path):
    with atomic_file(path, NUMBERS.nbytes) as temporary, temporary.open("wb") as file:
        torch.save(torch.from_numpy(NUMBERS), file)


def write_folder(path):
    """As a library does that is given a folder."""
    with atomic_files(path.parent, NUMBERS.nbytes) as folder:
        (folder / path.name).write_bytes(NUMBERS.tobytes())


WRITERS = [write_text, write_torch, write_folder]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o007, 0o660), (0o077, 0o600)])
def test_new_files_get_the_permissions_of_the_umask(tmp_path, write, mask, mode):
    before = os.umask(mask)
    try:
        write(tmp_path / "file")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("write", WRITERS)
def test_a_file_that_exceeds_the_limit_is_named(tmp_path, write):
    path = tmp_path / "file"
    with file_limit(10_000), pytest.raises(DiskFullError) as raised:
        write(path)
    told, named = str(raised.value), tmp_path if write is write_folder else path
    assert told.startswith(f"{named}: file too large: 20,000 bytes are needed, ")
    assert told.endswith(" are free")
    assert list(tmp_path.iterdir()) == []


def write_half_a_folder(folder):
    with atomic_files(folder) as temporary:
        (temporary / "file").write_text("second")
        raise KeyboardInterrupt


def test_a_failed_folder_write_keeps_the_old_folder(tmp_path):
    for folder, before in ((tmp_path / "there", ["file"]), (tmp_path / "new" / "er", None)):
        if before:
            folder.mkdir()
            (folder / "file").write_text("first")
        with pytest.raises(KeyboardInterrupt):
            write_half_a_folder(folder)
        assert folder.exists() == bool(before)
    assert [path.read_text() for path in (tmp_path / "there").iterdir()] == ["first"]
    with atomic_files(tmp_path / "there") as temporary:
        (temporary / "file").write_text("second")
    assert [path.read_text() for path in (tmp_path / "there").iterdir()] == ["second"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_and_a_used_up_quota_are_named(tmp_path, number):
    with pytest.raises(DiskFullError) as raised, writing(tmp_path / "new" / "file"):
        raise OSError(number, os.strerror(number))
    assert str(raised.value).startswith(f"{tmp_path}/new/file: {os.strerror(number).lower()}: ")


def test_errors_other_than_a_full_disk_keep_their_type(tmp_path):
    for error in (OSError(errno.EIO, "broken"), ValueError("wrong"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as raised, writing(tmp_path):
            raise error
        assert raised.value is error
    with pytest.raises(DiskFullError), writing(tmp_path, 1 << 60):
        raise ValueError("a library that does not tell the reason")


def test_a_home_folder_that_no_shell_has_filled_in_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        write_atomic(Path("~/found.html"), "text")
    assert not list(tmp_path.iterdir())
