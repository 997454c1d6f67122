"""Atomic file writes, checksums, text, typed decoding, and a clear error when the disk is full."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import secrets
import shutil
import socket
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields, is_dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, Literal, TypeVar

import msgspec
from safetensors import SafetensorError

from prolip.errors import DiskFullError, UserError

log = logging.getLogger(__name__)

T = TypeVar("T")
DERIVED = {"derived": True}
"""Metadata of a dataclass field that a run derives from other settings: it cannot be set and is not saved."""
OPERATIONAL = {"operational": True}
"""Metadata of a field, or of a table's fields, that may change when a run resumes. It does not change results."""
RESULTS = {"operational": False}
"""Metadata of a field that may not, in an operational table."""
TEMPORARY = ".*.????????.tmp"
"""Names of the files of `atomic_file`, and of claims."""
LOCK_SECONDS = 10.0
"""Seconds to wait for a killed process to end."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""The disk is full, a quota is used up, or a limit on the size of a file is reached."""


@contextmanager
def atomic_file(path: Path, size: int | None = None) -> Iterator[Path]:
    """Yield a temporary file that replaces `path` when the block succeeds, and is deleted when it raises.

    It gets the usual mode of new files (umask).

    Args:
        path: its folder is created.
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
            with _locked(temporary):
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
    """Refuse a path that begins with ~, which would become a folder of that name; the error names the field, if any."""
    if path.parts[:1] == ("~",):
        raise UserError(field or path, "`~` is not expanded here; give the full path", path)


def check_own_folder(out: Path, *marks: str) -> None:
    """Check that a command may write into a folder: it is new, empty, or holds a file that only such a command writes.

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


def lock_file(path: Path) -> int:
    """Open a file, lock it until it is closed or the process dies, write the owner into it, and return its descriptor.

    The lock is the kernel's (flock). Some storage does not share it between machines.

    Raises:
        UserError: another process has the lock; its owner is named.
    """
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            import fcntl  # Windows has none

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_here = os.path.samestat(os.fstat(descriptor), path.stat())
        except (BlockingIOError, FileNotFoundError):
            is_here = False
        except (ImportError, OSError) as error:
            log.warning("%s: its storage has no file locks (%s): let no other command write there", path.parent, error)
            is_here = True
        if is_here:  # else another process has the lock, or its owner has just deleted the file
            try:
                with writing(path):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, owner().encode(), 0)
            except BaseException:
                os.close(descriptor)
                raise
            return descriptor
        holder = os.pread(descriptor, 1 << 12, 0).decode()
        os.close(descriptor)
        if time.monotonic() > deadline:
            raise in_use(path.parent, holder)
        time.sleep(0.1)


def owner() -> str:
    """This process, for others that want what it has; a token tells it from all others."""
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    own = {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "among": _processes()}
    return json.dumps(own | {"token": secrets.token_hex(16)})


def has_ended(owner: str) -> bool:
    """Whether an owner is known to have ended: only one of the same machine and PID namespace can be."""
    try:
        known = json.JSONDecoder().raw_decode(owner)[0]
        if known["among"] is not None and known["among"] == _processes():
            os.kill(known["pid"], 0)
    except ProcessLookupError:
        return True
    except (ValueError, TypeError, KeyError, OSError):
        return False
    return False


def _processes() -> str | None:
    """The machine since its start, and the PID namespace, of this process; None where the system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def in_use(place: object, owner: str) -> UserError:
    """The error for a place that another process writes."""
    return UserError(place, "in use by another command: wait for it, stop it, or choose another --out", owner)


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Lock a file until the block ends or the process dies; yields False if another process has the lock.

    Also False where there are no locks, as on Windows and some network file systems.
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

    For libraries that write files themselves: some leave partial files, and safetensors' files are readable only by
    their owner.

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


def write_atomic(path: Path, text: str) -> None:
    """Write a text file atomically."""
    data = text.encode()
    with atomic_file(path, len(data)) as temporary:
        temporary.write_bytes(data)


def read_text(path: Path) -> str:
    """The text of a user's file in UTF-8, without a byte order mark."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(path, f"must be UTF-8 ({error})") from error


def decode(kind: type[T], table: Mapping[str, Any], *, from_text: bool = False, drop_unknown: bool = False) -> T:
    """A tree of dataclasses from plain values, as they come from JSON, TOML or flags.

    Args:
        kind: the dataclass.
        table: its fields.
        from_text: read text as the number or boolean that a field wants, and "None" as None, which TOML lacks.
        drop_unknown: leave unknown keys out.

    Raises:
        UserError: a field is missing, unknown, or has the wrong type, or breaks a rule of its dataclass.
    """
    try:
        given = _with_none(table) if from_text else table
        tree = msgspec.convert(given, kind, strict=not from_text, dec_hook=lambda inner, value: inner(value))
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, UserError):  # a rule of a dataclass
            raise error.__cause__ from None
        rule, _, path = str(error).partition(" - at `$")
        raise UserError(path.strip(".`") or kind.__name__, rule) from error
    if not drop_unknown and (unknown := sorted(flatten(table).keys() - flatten(plain(tree)).keys())):
        raise UserError(unknown[0], "unknown key")
    return tree


def plain(tree: Any, without: Literal["", "derived", "operational"] = "", marked: bool = False) -> Any:
    """A tree of dataclasses as dicts, lists and plain values; a path becomes text.

    Args:
        tree: the dataclass, or a value in it.
        without: leave out fields with this in their metadata.
        marked: the value of `without` in fields that do not say it. Tables pass theirs on.
    """
    if is_dataclass(tree):
        table = {}
        for field in fields(tree):
            value, leave_out = getattr(tree, field.name), field.metadata.get(without, marked)
            if is_dataclass(value) or not leave_out:
                table[field.name] = plain(value, without, leave_out)
        return table
    if isinstance(tree, tuple | list):
        return [plain(item, without) for item in tree]
    return str(tree) if isinstance(tree, Path) else tree


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The plain values of a nested table by dotted key. Items of a list of tables are numbered."""
    values: dict[str, Any] = {}
    for key, value in table.items():
        is_list = isinstance(value, list) and value and isinstance(value[0], dict)
        inner = {str(i): item for i, item in enumerate(value)} if is_list else value
        values |= flatten(inner, f"{prefix}{key}.") if isinstance(inner, dict) else {prefix + key: value}
    return values


def _with_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_none(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_none(item) for item in value]
    return None if value == "None" else value


def crc32(file: BinaryIO) -> int:
    """CRC-32 of an open file from its current position on."""
    found = 0
    while block := file.read(1 << 22):
        found = zlib.crc32(block, found)
    return found


@contextmanager
def writing(path: Path, size: int | None = None) -> Iterator[None]:
    """Raise DiskFullError, with the path and the bytes needed and free, if the block fails because the disk is full.

    Args:
        path: the file or folder that it writes.
        size: bytes that it needs, if known.
    """
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        reason = _why_full(error)
        if reason is None:
            raise
        needed = "" if size is None else f"{size:,} bytes are needed, "
        free = shutil.disk_usage(_existing(path)).free
        raise DiskFullError(path, f"{os.strerror(reason).lower()}: {needed}{free:,} are free") from error


def _why_full(error: BaseException) -> int | None:
    """The errno that says that the disk is full; None if the write failed for another reason."""
    at: BaseException | None = error
    while at is not None:  # torch wraps file errors
        # The error of safetensors has its number only in its text.
        told = re.search(r"\(os error (\d+)\)", str(at)) if isinstance(at, SafetensorError) else None
        number = at.errno if isinstance(at, OSError) else int(told[1]) if told else None
        if number in _FULL:
            return number
        at = at.__cause__ or at.__context__
    return None


def _existing(path: Path) -> Path:
    """The nearest existing folder: `path` or one above it."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
