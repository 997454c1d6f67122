"""Save and restore runs: restarts are bit-identical, and a crash leaves no partial checkpoint."""

from prolip.checkpoint.folder import (
    Best,
    CheckpointError,
    StorageError,
    checkpoint_path,
    is_checkpoint,
    list_checkpoints,
    read_best,
)
from prolip.checkpoint.resume import agree_on_checkpoint
from prolip.checkpoint.run_lock import RunLock
from prolip.checkpoint.saver import Saver
from prolip.checkpoint.state import (
    Average,
    Checkpoint,
    Notes,
    Preprocessing,
    find_latest,
    load_checkpoint,
    open_saved,
    restore_rng,
    rng_state,
    rng_tensors,
    run_tensors,
)

__all__ = [
    "Average",
    "Best",
    "Checkpoint",
    "CheckpointError",
    "Notes",
    "Preprocessing",
    "RunLock",
    "Saver",
    "StorageError",
    "agree_on_checkpoint",
    "checkpoint_path",
    "find_latest",
    "is_checkpoint",
    "list_checkpoints",
    "load_checkpoint",
    "open_saved",
    "read_best",
    "restore_rng",
    "rng_state",
    "rng_tensors",
    "run_tensors",
]
