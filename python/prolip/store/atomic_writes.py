"""Files that are whole or absent, and where they may be written."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from prolip.errors import UserError
from prolip.store.disk_full import writing

TEMPORARY = ".*.????????.tmp"
"""Names of the files of `atomic_file`."""


@contextmanager
def atomic_file(path: Path, size: int | None = None, *, new: bool = False) -> Iterator[Path]:
    """Yield a temporary file that replaces `path` when the block succeeds, and is deleted when it raises.

    It gets the usual mode of new files (umask).

    Args:
        path: its folder is created.
        size: bytes that it needs, if known.
        new: keep a file that is there; of several processes, one creates it.

    Raises:
        FileExistsError: `new`, and the file is there.
        DiskFullError: the disk is full.
        OSError: the file cannot be written; see `check_writable`.
    """
    check_writable(path)  # otherwise an error would name the temporary file
    path.parent.mkdir(parents=True, exist_ok=True)
    # Its own name: another process may write the same file.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with writing(path, size):
        try:
            temporary.touch(exist_ok=False)
        except OSError as error:  # such as on a network file system, where only the attempt tells
            error.filename = str(path)
            raise
        try:
            mode = temporary.stat().st_mode & 0o777
            with _locked(temporary):
                yield temporary
            temporary.chmod(mode)
            if new:
                os.link(temporary, path)  # at once: nobody finds an empty file
            else:
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Check, before long work begins, that a file can be written to `path`.

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
    """Refuse a path that begins with ~, which would become a folder of that name; `field` is the error's."""
    if path.parts[:1] == ("~",):
        raise UserError(field or path, "`~` is not expanded here; give the full path", path)


def check_own_folder(out: Path, *marks: str) -> None:
    """Check that a folder is new, empty, or holds a file that only such a command writes.

    Temporary files of `atomic_file` that killed commands left there are deleted.

    Raises:
        UserError: it holds other files, which the command could overwrite.
        OSError: it cannot be written; see `check_writable`.
    """
    check_writable(out / marks[0])
    others = out.is_dir() and not all(path.match(TEMPORARY) for path in out.iterdir())
    if others and not any((out / mark).is_file() for mark in marks):
        raise UserError("out", f"must be a new or empty folder, or hold {' or '.join(marks)}", out)
    for path in out.rglob(TEMPORARY):
        with _locked(path) as locked:
            if locked:
                path.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Lock a file until the block ends or the process dies; yields False if another process has the lock.

    Also where there are no locks, as on Windows and some network file systems.
    """
    with ExitStack() as opened:
        locked = False
        with suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(opened.enter_context(path.open("r+b")), fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = True
        yield locked


@contextmanager
def atomic_files(folder: Path, size: int | None = None) -> Iterator[Path]:
    """Yield a temporary folder; when the block succeeds, its files replace those of `folder`, with the usual mode.

    For libraries that write files themselves: some leave partial files, and safetensors' are readable only by their
    owner.

    Args:
        folder: created if it does not exist.
        size: bytes that the files need, if known.
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


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a text, or bytes, into a file atomically."""
    data = content.encode() if isinstance(content, str) else content
    with atomic_file(path, len(data)) as temporary:
        temporary.write_bytes(data)
