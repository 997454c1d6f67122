"""A run's folder of checkpoints: commit, list, verify and delete them.

step_000000040/           a complete checkpoint
  __0_0.distcp ...        tensors, one file per rank, in the format of torch.distributed.checkpoint
  .metadata               where each tensor is, in the same format
  run.json                the rest of the run's state
  tokenizer.json          the tokenizer's file, if it has one
  manifest.json           sizes and checksums of the other files, and its own checksum
step_000000060.partial/   an incomplete checkpoint
aside_000000060/          a checkpoint newer than the one the run resumed from
best                      a link to the best checkpoint so far, which is never deleted
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from prolip.errors import UserError
from prolip.store.file_contents import crc32

MANIFEST = "manifest.json"
BEST = "best"
FORMAT = 1
_NAME = re.compile(r"step_(\d+)")
VISIBLE_SECONDS = 30.0
"""In which a file server may hide one client's writes from another."""
_PAUSES = (0.5, 1.0, 2.0)
"""Seconds between attempts to read."""
ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""Errors about the path. Others come from the storage and may be temporary."""
T = TypeVar("T")

log = logging.getLogger(__name__)


class CheckpointError(UserError):
    """A checkpoint is damaged, or cannot be written."""


class StorageError(UserError):
    """An I/O error, which may be temporary."""


@dataclass(frozen=True, kw_only=True)
class Best:
    """The metric that makes a checkpoint the best."""

    metric: str
    value: float


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """Bytes and checksum of a file."""

    size: int
    crc32: int


def checkpoint_path(folder: Path, step: int) -> Path:
    """After `step` steps."""
    return folder / f"step_{step:09d}"


def partial_path(path: Path) -> Path:
    """Its place while it is written."""
    return path.with_name(f"{path.name}.partial")


def is_checkpoint(path: Path) -> bool:
    """Whether a path is one's folder."""
    return (path / MANIFEST).is_file()


def step_of(path: Path) -> int:
    """From a checkpoint's name; links are followed."""
    match = _NAME.fullmatch(path.resolve().name)
    if match is None:
        raise CheckpointError(path, "a checkpoint's folder must be called step_N")
    return int(match[1])


def list_checkpoints(folder: Path) -> list[Path]:
    """The complete ones in a folder, newest first.

    Raises:
        StorageError: the folder is there, but cannot be listed.
    """
    # Not `Path.glob`, which treats an unreadable folder as empty.
    try:
        names = patiently(folder, lambda: os.listdir(folder))
    except ABSENT:
        return []
    found = [(int(match[1]), folder / name) for name in names if (match := _NAME.fullmatch(name))]
    return [path for _, path in sorted(found, reverse=True)]


def patiently(path: Path, read: Callable[[], T]) -> T:
    """The result of `read`, called again after I/O errors.

    Raises:
        StorageError: every attempt failed.
        OSError: the error is about the path itself (`ABSENT`).
    """
    pauses = list(_PAUSES)
    while True:
        try:
            return read()
        except ABSENT:
            raise
        except OSError as error:
            if not pauses:
                raise StorageError(path, f"unreadable {len(_PAUSES) + 1} times, maybe not damaged: {error}") from error
            log.warning("%s could not be read, trying again: %s", path, error)
            time.sleep(pauses.pop(0))


# ---- One checkpoint: commit and verify ----


def record(path: Path) -> FileRecord:
    """Its size and checksum."""
    with path.open("rb") as file:
        return FileRecord(crc32=crc32(file), size=file.tell())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, and wait until it is on disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def wait_until(holds: Callable[[], bool]) -> bool:
    """Wait up to `VISIBLE_SECONDS`; returns whether it holds."""
    deadline = time.monotonic() + VISIBLE_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def check_visible(folder: Path, files: Mapping[str, FileRecord]) -> None:
    """Check that this process sees another rank's files.

    Raises:
        CheckpointError: a file is missing or has another size.
    """
    for name, expected in files.items():
        if not wait_until(partial(_has_size, folder / name, expected.size)):
            raise CheckpointError(folder / name, "missing or incomplete; all ranks must see the same folder")


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def commit(path: Path, files: Mapping[str, FileRecord], best: Best | None) -> None:
    """Make the files at `partial_path(path)`, which must be on disk, the checkpoint `path`, by a last renaming."""
    content = {
        "format": FORMAT,
        "files": {name: asdict(files[name]) for name in sorted(files)},
        "best": None if best is None else asdict(best),
    }
    written = partial_path(path)
    write_whole(written / MANIFEST, json.dumps({**content, "crc32": _checksum(content)}, indent=1).encode())
    _sync_folder(written)
    if path.exists():  # from an earlier start, which this run did not resume from
        set_aside(path)
    written.rename(path)
    _sync_folder(path.parent)


def _checksum(manifest: Mapping[str, object]) -> int:
    return zlib.crc32(json.dumps(manifest, sort_keys=True).encode())


class Manifest:
    """A checkpoint's files and their checksums.

    Raises:
        CheckpointError: the folder is not a checkpoint, or its manifest is damaged.
        OSError: the storage does not answer.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            content = json.loads((path / MANIFEST).read_bytes())
            self.checksum: int = content.pop("crc32")
            """Equal for equal content."""
        except ABSENT:
            raise CheckpointError(path, f"not a checkpoint of a run: {MANIFEST} is missing") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(path, f"{MANIFEST} is damaged: {error}") from error
        if _checksum(content) != self.checksum:
            raise CheckpointError(path, f"{MANIFEST} is damaged: its checksum is wrong")
        if content["format"] != FORMAT:
            raise CheckpointError(path, f"format must be {FORMAT}", content["format"])
        self.files = {name: FileRecord(**about) for name, about in content["files"].items()}
        self.best = None if content["best"] is None else Best(**content["best"])
        """None if this is not the best checkpoint."""

    def verify(self) -> None:
        """Read every byte, and compare sizes and checksums.

        Raises:
            CheckpointError: naming the first file that is missing or damaged.
        """
        for name, expected in self.files.items():
            try:
                found = record(self.path / name)
            except ABSENT as error:
                raise CheckpointError(self.path, f"{name} is missing") from error
            if found != expected:
                raise CheckpointError(self.path, f"{name} is damaged: size or checksum is wrong")


# ---- The whole folder ----


def set_aside(path: Path) -> Path:
    """Rename a checkpoint, which then no longer counts; returns its new path."""
    aside = path.with_name(path.name.replace("step_", "aside_"))
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)
    if not (path.parent / BEST).exists():
        (path.parent / BEST).unlink(missing_ok=True)
    return aside


def sweep(folder: Path) -> None:
    """Delete what interrupted saves left. No process may be saving."""
    for path in folder.glob("*.partial"):
        _delete(path)


def prune(folder: Path, *, keep: int) -> None:
    """Delete all checkpoints but the newest `keep` and the best."""
    best = (folder / BEST).resolve()
    for path in list_checkpoints(folder)[keep:]:
        if path.resolve() != best:
            # Renamed first: a process may die here.
            _delete(path.rename(partial_path(path)))


def _delete(path: Path) -> None:
    """A failure is only logged: a file server may refuse while a file is read."""
    try:
        path.unlink() if path.is_symlink() else shutil.rmtree(path)
    except OSError as error:
        log.warning("%s could not be deleted: %s", path, error)


def mark_best(path: Path) -> None:
    """Make the link `best` point to a checkpoint."""
    link = path.parent / f"{BEST}.partial"
    link.unlink(missing_ok=True)
    link.symlink_to(path.name)
    link.replace(path.parent / BEST)
    _sync_folder(path.parent)


def read_best(folder: Path) -> tuple[int, Best] | None:
    """Of the best checkpoint so far; None if there is none.

    Raises:
        CheckpointError: its manifest is damaged.
        StorageError: the storage does not answer.
    """
    if not (folder / BEST).exists():
        return None
    path = (folder / BEST).resolve()
    best = patiently(path, lambda: Manifest(path)).best
    return None if best is None else (step_of(path), best)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
