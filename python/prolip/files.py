"""Atomic file writes, checksums, text of any editor, and a clear error when the disk is full."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import BinaryIO

from safetensors import SafetensorError

from prolip.errors import DiskFullError, UserError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""The disk is full, a quota is used up, or a limit on the size of a file is reached."""


@contextmanager
def atomic_file(path: Path, size: int | None = None) -> Iterator[Path]:
    """Yield a temporary file that replaces `path` when the block succeeds, and is deleted when it raises.

    It gets the usual mode of new files (umask).

    Args:
        path: the file; its folder is created.
        size: bytes that it needs, if known.

    Raises:
        DiskFullError: the disk is full.
        OSError: the file cannot be written there; see `check_writable`.
    """
    check_writable(path)  # otherwise an error would name the temporary file
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own, since another process may write the same file.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with writing(path, size):
        try:
            temporary.touch(exist_ok=False)
        except OSError as error:  # such as on a network file system, where only the attempt tells
            error.filename = str(path)
            raise
        try:
            mode = temporary.stat().st_mode & 0o777
            yield temporary
            temporary.chmod(mode)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Check, before anything is written or long work begins, that a file can be written to `path`.

    Raises:
        UserError: it begins with ~; see `check_no_tilde`.
        IsADirectoryError: it is a folder.
        NotADirectoryError: a folder above it is a file.
        PermissionError: the folder that it goes into, or that is made in, cannot be written.
    """
    check_no_tilde(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    above = next(place for place in path.absolute().parents if place.exists())
    if not above.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    if not os.access(above, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(above))


def check_no_tilde(path: Path, field: str = "") -> None:
    """Check that a path does not begin with ~, which would become a folder of that name.

    Raises:
        UserError: it does. The message names the field, if there is one.
    """
    if path.parts[:1] == ("~",):
        raise UserError(f"{field and f'{field} is '}{path}: only a shell knows ~: write the folder in full")


def check_own_folder(out: Path, *marks: str) -> None:
    """Check that a command may write into a folder: it is new, empty, or holds a file that only such a command writes.

    Raises:
        UserError: it holds other files, which the command could overwrite.
        OSError: it cannot be written; see `check_writable`.
    """
    check_writable(out / marks[0])
    if out.is_dir() and any(out.iterdir()) and not any((out / mark).is_file() for mark in marks):
        raise UserError(f"out: {out} holds files, but no {' or '.join(marks)}: name a new or an empty folder")


@contextmanager
def atomic_files(folder: Path, size: int | None = None) -> Iterator[Path]:
    """Yield a temporary folder; when the block succeeds, its files replace those of `folder`, with the usual mode.

    For libraries that write files themselves: some leave partial files, and safetensors' files are readable only by
    their owner.

    Args:
        folder: the folder; created if it does not exist.
        size: bytes that the files need, if known.

    Raises:
        DiskFullError: the disk is full.
    """
    was_there = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with writing(folder, size), TemporaryDirectory(prefix=".new-", dir=folder) as name:
            yield (temporary := Path(name))
            for path in temporary.iterdir():
                with atomic_file(folder / path.name) as target:
                    path.replace(target)
    except BaseException:
        if not was_there and not any(folder.iterdir()):
            folder.rmdir()
        raise


def write_atomic(path: Path, text: str) -> None:
    """Write a text file atomically."""
    data = text.encode()
    with atomic_file(path, len(data)) as temporary:
        temporary.write_bytes(data)


def read_text(path: Path) -> str:
    """The text of a user's file, without a byte order mark.

    Raises:
        UserError: it is not in UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8: {error}") from error


def crc32(file: BinaryIO) -> int:
    """CRC-32 of an open file from its current position on."""
    found = 0
    while block := file.read(1 << 22):
        found = zlib.crc32(block, found)
    return found


@contextmanager
def writing(path: Path, size: int | None = None) -> Iterator[None]:
    """Raise DiskFullError if the block, which writes `path`, fails because the disk is full.

    Args:
        path: the file or folder.
        size: bytes that it needs, if known.

    Raises:
        DiskFullError: naming the path, and the bytes needed and free.
    """
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        reason = _why_full(error, path, size)
        if reason is None:
            raise
        needed = "" if size is None else f"{size:,} bytes are needed, "
        free = shutil.disk_usage(_existing(path)).free
        raise DiskFullError(f"{path}: {os.strerror(reason).lower()}: {needed}{free:,} are free") from error


def _why_full(error: BaseException, path: Path, size: int | None) -> int | None:
    """Return the errno that says that the disk is full; None if the write failed for another reason."""
    if isinstance(error, SafetensorError) and size is not None:
        # It carries no errno. Reserve the same size again to find out; the partial file is deleted by now.
        if not hasattr(os, "posix_fallocate"):  # macOS, Windows
            return errno.ENOSPC if shutil.disk_usage(_existing(path)).free < size else None
        try:
            with TemporaryFile(dir=_existing(path)) as file:
                os.posix_fallocate(file.fileno(), 0, max(size, 1))
        except OSError as reserved:
            return reserved.errno if reserved.errno in _FULL else None
    at: BaseException | None = error
    while at is not None:  # torch wraps file errors
        if isinstance(at, OSError) and at.errno in _FULL:
            return at.errno
        at = at.__cause__ or at.__context__
    return None


def _existing(path: Path) -> Path:
    """Return the nearest existing folder: `path` or one above it."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
