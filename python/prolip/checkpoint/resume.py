"""Choose the checkpoint that a run resumes from."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from prolip.checkpoint.folder import CheckpointError, StorageError, checkpoint_path, list_checkpoints
from prolip.checkpoint.state import Checkpoint, find_latest, load_checkpoint, open_saved
from prolip.distributed import Ranks

_RESTARTS = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
"""In which torchrun and Slurm count restarts."""


def agree_on_checkpoint(folder: Path, resume: str, ranks: Ranks) -> Checkpoint | None:
    """The checkpoint that all ranks resume from; None to start at step 0. Rank 0 chooses and verifies.

    Args:
        folder: the run's folder of checkpoints, which all ranks see.
        resume: "auto": the newest usable checkpoint. "never": none, and the folder must be empty. Or a step in this
            folder, or the path of a checkpoint or run. A start by torchrun or Slurm after a failure takes the newest
            checkpoint if there is one.

    Raises:
        CheckpointError: on all ranks, if the checkpoint cannot be used, or if there are some and none is usable.
        StorageError: on all ranks, if the storage does not answer.
    """
    found, failure = _try(lambda: _choose(folder, resume)) if ranks.rank == 0 else (None, None)
    chosen, failure = ranks.broadcast((None if found is None else (found.path, found.manifest.checksum), failure))
    if chosen is not None and ranks.rank != 0:
        path, checksum = chosen
        found, failure = _try(lambda: load_checkpoint(path, checksum=checksum))
        failure = failure and failure.within(f"rank {ranks.rank}: ")
    failure = next((one for one in ranks.all_gather(failure) if one is not None), None)
    if failure is not None:
        raise failure
    return found


def _try(find: Callable[[], Checkpoint | None]) -> tuple[Checkpoint | None, CheckpointError | StorageError | None]:
    try:
        return find(), None
    except (CheckpointError, StorageError) as error:
        return None, error


def _choose(folder: Path, resume: str) -> Checkpoint | None:
    there = list_checkpoints(folder)
    restarted = any(os.environ.get(name, "0") != "0" for name in _RESTARTS)
    if resume == "auto" or (restarted and there):
        return find_latest(folder)
    if resume == "never":
        if there:
            raise CheckpointError("resume", '"never" needs a new folder', f"{folder}, which holds {there[0].name}")
        return None
    path = checkpoint_path(folder, int(resume)) if resume.isdecimal() else Path(resume)
    found = open_saved(path)
    if found is None:
        raise CheckpointError("resume", "must be auto, never, a step or a checkpoint's path", path)
    return found
