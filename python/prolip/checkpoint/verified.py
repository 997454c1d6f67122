"""Read the files of one checkpoint, verified, so that no load mixes two checkpoints.

The folder is opened once, and its files are opened in it, not by their path: so a link that moves, or a folder that is
replaced during a load, changes nothing. A file must be the one that was verified when it is read again.
"""

from __future__ import annotations

import json
import os
import weakref
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from prolip.checkpoint.folder import (
    ABSENT,
    BEST,
    FORMAT,
    MANIFEST,
    Best,
    CheckpointError,
    manifest_checksum,
    patiently,
    step_of,
)
from prolip.files import crc32

T = TypeVar("T")


class CheckpointFiles:
    """The open files of one checkpoint. They stay the same if its path is replaced.

    Raises:
        CheckpointError: the folder is not a checkpoint, or its manifest is damaged.
        OSError: the storage does not answer.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not hasattr(os, "O_DIRECTORY"):  # Windows
            raise CheckpointError(f"{path}: only Linux and macOS can read checkpoints of runs: export the model there")
        try:
            self._folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except ABSENT:
            raise CheckpointError(f"{path}: {MANIFEST} is missing: not a checkpoint of a run") from None
        weakref.finalize(self, os.close, self._folder)
        self._verified: dict[str, tuple[int, ...]] = {}
        content = self._read_manifest()
        self.checksum: int = content["crc32"]
        """Checksum of the manifest. Checkpoints with the same one have the same content."""
        self.best = None if content["best"] is None else Best(**content["best"])
        """Why this checkpoint is the best; None if it is not."""
        self._files: dict[str, dict[str, int]] = content["files"]

    def __contains__(self, name: str) -> bool:
        return name in self._files

    @property
    def num_bytes(self) -> int:
        """Bytes of all files."""
        return sum(about["size"] for about in self._files.values())

    def verify(self) -> None:
        """Read every byte, and compare sizes and checksums.

        Raises:
            CheckpointError: naming the first file that is missing, has another size or is damaged.
        """
        for name, expected in self._files.items():
            with self.open(name) as file:
                checksum = crc32(file)
                self._verified[name] = _stamp(file)
            if checksum != expected["crc32"]:
                raise CheckpointError(f"{self.path}: {name} is damaged: its checksum is wrong")

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading.

        Raises:
            CheckpointError: it is missing, has another size, or is not the one that was verified.
        """
        file = self._open(name)
        found, size, stamp = os.fstat(file.fileno()).st_size, self._files[name]["size"], _stamp(file)
        if found == size and self._verified.get(name, stamp) == stamp:
            return file
        file.close()
        if found != size:
            raise CheckpointError(f"{self.path}: {name} has {found:,} bytes instead of {size:,}")
        raise CheckpointError(f"{self.path}: {name} has changed since it was verified")

    def read(self, name: str) -> bytes:
        """The bytes of a file, verified.

        Raises:
            CheckpointError: see `open`; or its checksum is wrong.
        """
        with self.open(name) as file:
            content = file.read()
        if zlib.crc32(content) != self._files[name]["crc32"]:
            raise CheckpointError(f"{self.path}: {name} is damaged: its checksum is wrong")
        return content

    def were_replaced(self) -> bool:
        """Whether the path now leads to another folder, or to none."""
        opened = os.fstat(self._folder)
        try:
            now = self.path.stat()
        except OSError:
            return True
        return (now.st_dev, now.st_ino) != (opened.st_dev, opened.st_ino)

    def _open(self, name: str) -> BinaryIO:
        try:
            return open(os.open(name, os.O_RDONLY, dir_fd=self._folder), "rb")
        except FileNotFoundError:
            why = ": not a checkpoint of a run" if name == MANIFEST else ""
            raise CheckpointError(f"{self.path}: {name} is missing{why}") from None
        except ABSENT as error:
            raise CheckpointError(f"{self.path}: {name} cannot be read: {error}") from error

    def _read_manifest(self) -> dict[str, Any]:
        with self._open(MANIFEST) as file:
            written = file.read()
        try:
            content = json.loads(written)
            others = {key: value for key, value in content.items() if key != "crc32"}
            is_whole = manifest_checksum(others) == content["crc32"]
        except (ValueError, KeyError, AttributeError, RecursionError) as error:
            raise CheckpointError(f"{self.path}: {MANIFEST} cannot be read: {error}") from error
        if not is_whole:
            raise CheckpointError(f"{self.path}: {MANIFEST} is damaged: its checksum is wrong")
        if content.get("format") != FORMAT:
            raise CheckpointError(
                f"{self.path}: its format is {content.get('format')}, and this version reads {FORMAT}"
            )
        if not _is_manifest(content):
            raise CheckpointError(f"{self.path}: {MANIFEST} does not list files with their sizes and checksums")
        assert isinstance(content, dict)
        return content


def load_replaceable(path: Path, load: Callable[[CheckpointFiles], T]) -> T:
    """Return what `load` returns for a checkpoint's files; retried once if the folder was replaced meanwhile.

    Raises:
        CheckpointError: the checkpoint is damaged.
        StorageError: the storage does not answer.
    """
    files = patiently(path, lambda: CheckpointFiles(path))
    try:
        return patiently(path, lambda: load(files))
    except CheckpointError:
        if not files.were_replaced():
            raise
        return patiently(path, lambda: load(CheckpointFiles(path)))


def read_best(folder: Path) -> tuple[int, Best] | None:
    """Step of the best checkpoint so far, and why it is the best; None if there is none.

    Raises:
        CheckpointError: its manifest is damaged.
        StorageError: the storage does not answer.
    """
    link = folder / BEST
    if not link.exists():
        return None
    path = link.resolve()
    best = load_replaceable(path, lambda files: files.best)
    return None if best is None else (step_of(path), best)


def _is_manifest(content: dict[str, Any]) -> bool:
    """Whether a manifest lists plain names with sizes and checksums and, for a best checkpoint, why it is the best."""
    files, best = content.get("files"), content.get("best")
    is_best = best is None or (isinstance(best, dict) and best.keys() == Best.__dataclass_fields__.keys())
    return (
        is_best
        and isinstance(files, dict)
        and all(name == os.path.basename(name) and name not in {"", ".", ".."} for name in files)
        and all(
            isinstance(about, dict)
            and about.keys() == {"size", "crc32"}
            and all(type(number) is int and number >= 0 for number in about.values())
            for about in files.values()
        )
    )


def _stamp(file: BinaryIO) -> tuple[int, ...]:
    """Return what identifies a file. Nobody writes into a checkpoint's files, but they can be replaced."""
    found = os.fstat(file.fileno())
    return found.st_ino, found.st_size, found.st_mtime_ns
