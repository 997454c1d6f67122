"""Choose the checkpoint that a run resumes from: rank 0 chooses and verifies, all ranks use the same one."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import torch.distributed as dist

from prolip.checkpoint.folder import CheckpointError, checkpoint_path, list_checkpoints
from prolip.checkpoint.state import Checkpoint, find_latest, load_checkpoint, open_saved
from prolip.distributed import Ranks

log = logging.getLogger(__name__)


def agree_on_checkpoint(folder: Path, resume: str, ranks: Ranks) -> Checkpoint | None:
    """The checkpoint that all ranks resume from; None to start at step 0. Rank 0 logs checkpoints it rejects, and why.

    Args:
        folder: the run's folder of checkpoints, which all ranks see.
        resume: "auto": the newest usable checkpoint. "never": none, and the folder must be empty. Or a step in this
            folder, or the path of a checkpoint or run. After torchrun has restarted its workers, the newest checkpoint
            of the folder is used if there is one, whatever `resume` says.
        ranks: this process's rank.

    Raises:
        CheckpointError: on all ranks, if the checkpoint that `resume` names cannot be used.
    """
    found, failure = None, ""
    if ranks.rank == 0:
        try:
            found = _choose(folder, resume)
        except (CheckpointError, OSError) as error:
            failure = str(error)
    if ranks.world_size > 1:
        sent = [(None if found is None else found.path, failure)]
        dist.broadcast_object_list(sent, src=0, device=ranks.device)
        path, failure = sent[0]
        if ranks.rank != 0 and path is not None:
            found = load_checkpoint(path, is_checked=True)
    if failure:
        raise CheckpointError(failure)
    return found


def _choose(folder: Path, resume: str) -> Checkpoint | None:
    there = list_checkpoints(folder)
    restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0" and there
    if resume == "auto" or restarted:
        return _newest(folder)
    if resume == "never":
        if there:
            raise CheckpointError(
                f'resume is "never", but {folder} holds {there[0].name}: choose another --name, or remove that folder'
            )
        return None
    path = checkpoint_path(folder, int(resume)) if resume.isdecimal() else Path(resume)
    found = open_saved(path)
    if found is None:
        raise CheckpointError(f"resume is {resume!r}: {path} is not a checkpoint: give one, a step, auto or never")
    return found


def _newest(folder: Path) -> Checkpoint | None:
    found, rejected = find_latest(folder)
    for reason in rejected:
        log.warning("checkpoint rejected: %s", reason)
    if rejected and found is None:
        log.warning("no usable checkpoint in %s: starting from step 0", folder)
    return found
