"""A run's folder of checkpoints: commit, verify, list and delete them.

step_000000040/           a complete checkpoint; all its bytes were on disk before it got this name
  __0_0.distcp ...        tensors, one file per rank, in the format of torch.distributed.checkpoint
  .metadata               place of each tensor in these files, in the same format
  run.json                the rest of the run's state
  manifest.json           sizes and checksums of the other files, and its own checksum
step_000000060.partial/   a checkpoint that is being written, or was when the process died
aside_000000060/          a checkpoint newer than the one the run resumed from
best                      a link to the best checkpoint so far, which is never deleted
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prolip.errors import UserError

MANIFEST = "manifest.json"
BEST = "best"
_FORMAT = 1
_NAME = re.compile(r"step_(\d+)")
_BLOCK = 1 << 22


class CheckpointError(UserError):
    """A checkpoint cannot be read or written; the message says which and why."""


@dataclass(frozen=True, kw_only=True)
class Best:
    """Why a checkpoint is the best."""

    metric: str
    """Name of the metric."""
    value: float
    """Its value."""


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """Size and checksum of a file in a checkpoint."""

    size: int
    """Bytes."""
    crc32: int
    """Checksum of all bytes."""


def checkpoint_path(folder: Path, step: int) -> Path:
    """Path of the checkpoint after `step` steps."""
    return folder / f"step_{step:09d}"


def partial_path(path: Path) -> Path:
    """Path of a checkpoint while it is being written."""
    return path.with_name(f"{path.name}.partial")


def is_checkpoint(path: Path) -> bool:
    """Whether a path is a checkpoint's folder."""
    return (path / MANIFEST).is_file()


def step_of(path: Path) -> int:
    """The step in a checkpoint's name; links are followed."""
    match = _NAME.fullmatch(path.resolve().name)
    if match is None:
        raise CheckpointError(f"{path}: a checkpoint's folder must be called step_N")
    return int(match[1])


def list_checkpoints(folder: Path) -> list[Path]:
    """Paths of the complete checkpoints in a folder, newest first."""
    found = [(int(match[1]), path) for path in folder.glob("step_*") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


# ---- One checkpoint: commit and check ----


def record(path: Path) -> FileRecord:
    """Size and checksum of a file."""
    checksum, size = 0, 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            checksum, size = zlib.crc32(block, checksum), size + len(block)
    return FileRecord(size=size, crc32=checksum)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file, and wait until it is on disk."""
    with path.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def commit(path: Path, files: dict[str, FileRecord], best: Best | None) -> None:
    """Turn the files at `partial_path(path)`, which must be on disk, into the checkpoint `path`.

    The manifest is written last, and then the folder is renamed. So a folder with this name is always complete.
    """
    content = {
        "format": _FORMAT,
        "files": {name: asdict(files[name]) for name in sorted(files)},
        "best": None if best is None else asdict(best),
    }
    partial = partial_path(path)
    write_json(partial / MANIFEST, {**content, "crc32": _checksum(content)})
    _sync_folder(partial)
    if path.exists():  # from an earlier start, which this run did not resume from
        set_aside(path)
    partial.rename(path)
    _sync_folder(path.parent)


def check(path: Path) -> None:
    """Read every byte of a checkpoint, and compare sizes and checksums.

    Raises:
        CheckpointError: naming the first file that is missing, has another size or is damaged.
    """
    for name, expected in _manifest(path)["files"].items():
        file = path / name
        try:
            size = file.stat().st_size
            if size != expected["size"]:
                raise CheckpointError(f"{path}: {name} has {size:,} bytes instead of {expected['size']:,}")
            if record(file).crc32 != expected["crc32"]:
                raise CheckpointError(f"{path}: {name} is damaged: its checksum is wrong")
        except FileNotFoundError:
            raise CheckpointError(f"{path}: {name} is missing") from None
        except OSError as error:
            raise CheckpointError(f"{path}: {name} cannot be read: {error}") from error


def _manifest(path: Path) -> dict[str, Any]:
    try:
        content = json.loads((path / MANIFEST).read_bytes())
        expected = content.pop("crc32")
        is_whole = _checksum(content) == expected
    except FileNotFoundError:
        raise CheckpointError(f"{path}: {MANIFEST} is missing: not a checkpoint of a run") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: {MANIFEST} cannot be read: {error}") from error
    if not is_whole:
        raise CheckpointError(f"{path}: {MANIFEST} is damaged: its checksum is wrong")
    if content["format"] != _FORMAT:
        raise CheckpointError(f"{path}: its format is {content['format']}, and this version reads {_FORMAT}")
    assert isinstance(content, dict)
    return content


def _checksum(content: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


# ---- All of a folder ----


def set_aside(path: Path) -> Path:
    """Rename a checkpoint so that it no longer counts, and return its new path."""
    aside = path.with_name(path.name.replace("step_", "aside_"))
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)
    if not (path.parent / BEST).exists():
        (path.parent / BEST).unlink(missing_ok=True)
    return aside


def sweep(folder: Path) -> None:
    """Delete what interrupted saves left. No process may be saving into the folder."""
    for path in folder.glob("*.partial"):
        shutil.rmtree(path)


def prune(folder: Path, *, keep: int) -> None:
    """Delete all checkpoints except the newest `keep` and the best."""
    best = (folder / BEST).resolve()
    for path in list_checkpoints(folder)[keep:]:
        if path.resolve() != best:
            # Renamed first, so that a process that dies here leaves no incomplete checkpoint.
            shutil.rmtree(path.rename(partial_path(path)))


def mark_best(path: Path) -> None:
    """Let `best` link to a checkpoint."""
    link = path.parent / f"{BEST}.partial"
    link.unlink(missing_ok=True)
    link.symlink_to(path.name)
    link.replace(path.parent / BEST)
    _sync_folder(path.parent)


def read_best(folder: Path) -> tuple[int, Best] | None:
    """Step of the best checkpoint so far, and why it is the best; None if there is none.

    Raises:
        CheckpointError: its manifest is damaged.
    """
    path = folder / BEST
    if not path.exists():
        return None
    content = _manifest(path)["best"]
    return None if content is None else (step_of(path), Best(**content))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
