"""A run's folder of checkpoints: what counts as one, what is damaged, which stay.

step_000000040/           a checkpoint; the name is given to a folder whose bytes are all on the disk
  __0_0.distcp ...        tensors, a file a rank, in the format of torch.distributed.checkpoint
  .metadata               which tensor lies where in them, of the same format
  run.json                what of the run's state is no tensor
  manifest.json           sizes and checksums of the others, and its own
step_000000060.partial/   one that is being written, or was when the process died
aside_000000060/          one that the run did not go on from, though it is newer than what it went on from
best                      a link to the best one so far, which stays however old it is
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

MANIFEST = "manifest.json"
BEST = "best"
_FORMAT = 1
_NAME = re.compile(r"step_(\d+)")
_BLOCK = 1 << 22


class CheckpointError(ValueError):
    """A checkpoint that can't be used or written; the message says which and why."""


@dataclass(frozen=True, kw_only=True)
class Best:
    """Why a checkpoint is kept."""

    metric: str
    """The metric by which it is the best."""
    value: float
    """That metric's value."""


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """What a file of a checkpoint must be."""

    size: int
    """Bytes."""
    crc32: int
    """Checksum of all of them."""


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint after `step` steps lies."""
    return folder / f"step_{step:09d}"


def partial_path(path: Path) -> Path:
    """Where a checkpoint lies while it is written."""
    return path.with_name(f"{path.name}.partial")


def is_checkpoint(path: Path) -> bool:
    """Whether a path is a checkpoint's folder."""
    return (path / MANIFEST).is_file()


def step_of(path: Path) -> int:
    """The step in a checkpoint's name, links followed."""
    match = _NAME.fullmatch(path.resolve().name)
    if match is None:
        raise CheckpointError(f"{path}: a checkpoint's folder is called step_N")
    return int(match[1])


def list_checkpoints(folder: Path) -> list[Path]:
    """Paths of the checkpoints in a folder, newest first; unfinished ones are not among them."""
    found = [(int(match[1]), path) for path in folder.glob("step_*") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


# ---- One checkpoint: commit and check ----


def record(path: Path) -> FileRecord:
    """Size and checksum of a file as it is."""
    checksum, size = 0, 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            checksum, size = zlib.crc32(block, checksum), size + len(block)
    return FileRecord(size=size, crc32=checksum)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a file and waits for it to be on the disk."""
    with path.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def commit(path: Path, files: dict[str, FileRecord], best: Best | None) -> None:
    """Makes what lies at `partial_path(path)`, all of it on the disk, the checkpoint `path`.

    The manifest is written last and the folder renamed after that, so that what has the name is whole at any moment.
    """
    content = {
        "format": _FORMAT,
        "files": {name: asdict(files[name]) for name in sorted(files)},
        "best": None if best is None else asdict(best),
    }
    partial = partial_path(path)
    write_json(partial / MANIFEST, {**content, "crc32": _checksum(content)})
    _sync_folder(partial)
    if path.exists():  # of an earlier sitting, which this one did not go on from
        set_aside(path)
    partial.rename(path)
    _sync_folder(path.parent)


def check(path: Path) -> None:
    """Reads every byte of a checkpoint.

    Raises:
        CheckpointError: naming the first file that is missing, of another size or damaged.
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
        raise CheckpointError(f"{path}: it is of format {content['format']}, and this version reads {_FORMAT}")
    assert isinstance(content, dict)
    return content


def _checksum(content: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


# ---- All of a folder ----


def set_aside(path: Path) -> Path:
    """Takes a checkpoint out of those that count, without losing it; where it lies now."""
    aside = path.with_name(path.name.replace("step_", "aside_"))
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)
    if not (path.parent / BEST).exists():
        (path.parent / BEST).unlink(missing_ok=True)
    return aside


def sweep(folder: Path) -> None:
    """Removes what an interrupted save left. Nobody may be saving into the folder."""
    for path in folder.glob("*.partial"):
        shutil.rmtree(path)


def prune(folder: Path, *, keep: int) -> None:
    """Removes all but the newest `keep` checkpoints and the best."""
    best = (folder / BEST).resolve()
    for path in list_checkpoints(folder)[keep:]:
        if path.resolve() != best:
            # First the name, so that a process that dies here leaves no checkpoint with files missing.
            shutil.rmtree(path.rename(partial_path(path)))


def mark_best(path: Path) -> None:
    """Makes a checkpoint the one that `best` leads to."""
    link = path.parent / f"{BEST}.partial"
    link.unlink(missing_ok=True)
    link.symlink_to(path.name)
    link.replace(path.parent / BEST)
    _sync_folder(path.parent)


def read_best(folder: Path) -> tuple[int, Best] | None:
    """The step of the best checkpoint so far and why it is; None where there is none.

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
