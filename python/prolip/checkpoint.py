"""Checkpoints: all that a bit-identical restart needs, written so that no crash leaves half a file under its name."""

from __future__ import annotations

import dataclasses
import logging
import os
import pickle
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from prolip.distributed import Ranks

log = logging.getLogger(__name__)

_NAME = re.compile(r"step_(\d+)\.pt")


class CheckpointError(ValueError):
    """A checkpoint that can't be used; the message says which and why."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """State of a run after a step. Plain containers and tensors, readable with `torch.load(weights_only=True)`."""

    step: int
    """Steps done."""
    model: dict[str, Tensor]
    """The model's state dict, official names."""
    model_config: dict[str, Any]
    """The model's configuration in the official JSON's form: with `model`, all that inference needs."""
    optimizer: dict[str, Any]
    """The optimiser's state dict."""
    cursor: dict[str, Any]
    """Where the loader goes on: `prolip.data.Cursor.to_dict()`."""
    rng: list[dict[str, Tensor]]
    """State of each rank's random generators by device type, in order of rank."""
    elapsed_s: float
    """Seconds of training up to here, over all sittings."""
    config: str
    """The run's configuration as TOML."""


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint after `step` steps lies."""
    return folder / f"step_{step:09d}.pt"


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, keep: int) -> Path:
    """The path of the checkpoint that was written; of the older ones the `keep - 1` newest stay.

    The file appears under its name only when all its bytes are on the disk: a temporary file is written and
    synchronised, then renamed, then the folder is synchronised. Older ones are removed only after that.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = checkpoint_path(folder, checkpoint.step)
    temporary = path.with_suffix(".tmp")
    content = {field.name: getattr(checkpoint, field.name) for field in dataclasses.fields(checkpoint)}
    with temporary.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_folder(folder)
    prune(folder, keep=keep)
    return path


def load_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in a file, its tensors on the CPU.

    Raises:
        CheckpointError: the file is missing, damaged, or not a checkpoint of a run.
    """
    try:
        # torch.load does not compare the checksums of the archive it reads; a flipped bit would train on.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise CheckpointError(f"{path}: damaged: the checksum of {damaged} is wrong")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    names = {field.name for field in dataclasses.fields(Checkpoint)}
    if not isinstance(content, dict) or content.keys() != names:
        raise CheckpointError(f"{path}: not a checkpoint of a run: it must hold {', '.join(sorted(names))}")
    return Checkpoint(**content)


def list_checkpoints(folder: Path) -> list[Path]:
    """Paths of the checkpoints in a folder, newest first; unfinished files are not among them."""
    found = [(int(match[1]), path) for path in folder.glob("step_*.pt") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def find_latest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that can be used, if there is one, and why each newer one can't."""
    rejected: list[str] = []
    for path in list_checkpoints(folder):
        try:
            return load_checkpoint(path), rejected
        except CheckpointError as error:
            rejected.append(str(error))
    return None, rejected


def agree_on_checkpoint(folder: Path, ranks: Ranks) -> Checkpoint | None:
    """The newest checkpoint that rank 0 can use, loaded on every rank; rank 0 tells of those that it rejects."""
    saved: Checkpoint | None = None
    if ranks.rank == 0:
        saved, rejected = find_latest(folder)
        for reason in rejected:
            log.warning("checkpoint rejected: %s", reason)
        if rejected and saved is None:
            log.warning("no usable checkpoint in %s: starting from step 0", folder)
    if ranks.world_size > 1:
        chosen = [saved.step if saved is not None else None]
        dist.broadcast_object_list(chosen, src=0, device=ranks.device)
        if ranks.rank != 0 and chosen[0] is not None:
            saved = load_checkpoint(checkpoint_path(folder, chosen[0]))
    return saved


def prune(folder: Path, *, keep: int) -> None:
    """Removes all but the newest `keep` checkpoints, and what an interrupted save left."""
    for path in [*list_checkpoints(folder)[keep:], *folder.glob("step_*.tmp")]:
        path.unlink(missing_ok=True)


def rng_state(device: torch.device) -> dict[str, Tensor]:
    """States of torch's random generators that this rank uses."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def gather_rng(ranks: Ranks) -> list[dict[str, Tensor]]:
    """`rng_state` of every rank, in order of rank; all ranks call it."""
    states: list[dict[str, Tensor]] = [rng_state(ranks.device)]
    if ranks.world_size > 1:
        states = [{} for _ in range(ranks.world_size)]
        dist.all_gather_object(states, rng_state(ranks.device))
    return states


def restore_rng(state: dict[str, Tensor], device: torch.device) -> None:
    """Puts torch's random generators back into a saved state."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
