"""A run's state, and how to restore it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict

from prolip.checkpoint.folder import CheckpointError, Manifest, is_checkpoint, list_checkpoints, patiently
from prolip.checkpoint.tensors import read_into, read_whole, stored_tensors
from prolip.distributed import Ranks
from prolip.store.typed_tables import decode

log = logging.getLogger(__name__)

NOTES = "run.json"
_MODEL, _OPTIMIZER, _AVERAGE, _RNG = "model.", "optimizer.", "ema.", "rng."


class Average(Protocol):
    """Averaged weights."""

    def state_dict(self) -> dict[str, Tensor]:
        """By name, not copied."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The tokenizer and the preparation of images, stored with the model for inference."""

    tokenizer: dict[str, Any] | None = None
    """`prolip.data.tokenizer.TokenizerConfig.to_dict()`; its path is the name of one of `files`."""
    images: dict[str, Any] | None = None
    """How images are prepared: size, resizing, mean and std."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """The tokenizer's, by its name in the checkpoint's folder."""


@dataclass(frozen=True, kw_only=True)
class Notes:
    """A run's state but for tensors, in plain containers."""

    step: int
    """Steps done."""
    world_size: int
    """Ranks that saved it."""
    elapsed_s: float
    """Seconds of training so far, over all restarts."""
    cursor: dict[str, Any]
    """Where the loader resumes: `prolip.data.Cursor.to_dict()`."""
    config: str
    """As TOML."""
    model_config: dict[str, Any]
    """In the official JSON form."""
    samples: int = 0
    """Samples seen over all ranks."""
    keep_ratio: float | None = None
    """Of patches that training kept of masked images."""
    scaler: dict[str, Any] | None = None
    """Of fp16's loss scaler."""
    tokenizer: dict[str, Any] | None = None
    """See `Preprocessing`; the saver adds it."""
    images: dict[str, Any] | None = None
    """See `Preprocessing`."""


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint on disk. Its tensors are read on request."""

    path: Path
    notes: Notes
    """All but the tensors."""
    manifest: Manifest = field(repr=False, compare=False)

    @property
    def step(self) -> int:
        """Steps done."""
        return self.notes.step

    def weights(self) -> dict[str, Tensor]:
        """For inference, on the CPU: the averaged weights if the run keeps them."""
        return self.model() | self.average()

    def model(self) -> dict[str, Tensor]:
        """The state dict of the trained model, not averaged, on the CPU."""
        return read_whole(self.path, _MODEL)

    def average(self) -> dict[str, Tensor]:
        """The averaged weights, on the CPU; {} if the run keeps none."""
        return read_whole(self.path, _AVERAGE)

    def optimizer(self) -> dict[str, Tensor]:
        """By PARAMETER.KEY, on the CPU."""
        return read_whole(self.path, _OPTIMIZER)

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer, average: Average | None = None) -> None:
        """Read the state; the model may be wrapped and sharded.

        Raises:
            CheckpointError: a tensor is missing or has another shape.
        """
        # Optimizers create state in the first step: torch takes one here without effect.
        wanted = run_tensors(model, optimizer, average)
        stored = stored_tensors(self.path)
        idle = {name for name in wanted if name.startswith(_OPTIMIZER) and name not in stored}
        read_into(self.path, {name: tensor for name, tensor in wanted.items() if name not in idle})
        for name, parameter in model.named_parameters():
            if any(key.startswith(f"{_OPTIMIZER}{name}.") for key in idle):  # it had no gradient yet
                optimizer.state.pop(parameter, None)

    def restore_rng(self, ranks: Ranks) -> None:
        """Of this rank, if the number of ranks is the same."""
        if self.notes.world_size == ranks.world_size:
            restore_rng(read_whole(self.path, f"{_RNG}{ranks.rank}."), ranks.device)


def run_tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer, average: Average | None = None
) -> dict[str, Tensor]:
    """By name, not copied."""
    of_model: dict[str, Any] = get_model_state_dict(model)
    of_optimizer: dict[str, Any] = get_optimizer_state_dict(model, optimizer)
    tensors: dict[str, Tensor] = {_MODEL + name: tensor for name, tensor in of_model.items()}
    for name, state in of_optimizer["state"].items():
        tensors |= {f"{_OPTIMIZER}{name}.{key}": value for key, value in state.items()}
    if average is not None:
        tensors |= {_AVERAGE + name: tensor for name, tensor in average.state_dict().items()}
    assert all(isinstance(tensor, Tensor) for tensor in tensors.values())
    return tensors


def rng_tensors(ranks: Ranks) -> dict[str, Tensor]:
    """Under names with this rank."""
    return {f"{_RNG}{ranks.rank}.{device}": state for device, state in rng_state(ranks.device).items()}


def rng_state(device: torch.device) -> dict[str, Tensor]:
    """Those that this rank uses."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_rng(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Undo `rng_state`."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


# ---- From a folder ----


def load_checkpoint(path: Path, *, checksum: int | None = None) -> Checkpoint:
    """Open the checkpoint in a folder, and verify it.

    Args:
        checksum: the manifest's, if another rank has verified every byte.

    Raises:
        CheckpointError: the folder is missing, damaged, or not a checkpoint of a run.
        StorageError: the storage does not answer.
    """

    def load() -> Checkpoint:
        manifest = Manifest(path)
        if checksum is None:
            manifest.verify()
        elif manifest.checksum != checksum:
            raise CheckpointError(path, "not the checkpoint that rank 0 opened")
        return Checkpoint(path, _read_notes(path), manifest)

    return patiently(path, load)


def _read_notes(path: Path) -> Notes:
    try:
        return decode(Notes, json.loads((path / NOTES).read_bytes()))
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(path, f"{NOTES} cannot be read: {error}") from error


def find_latest(folder: Path) -> Checkpoint | None:
    """The newest usable checkpoint; None if the folder has none. Logs why newer ones are not usable.

    Raises:
        CheckpointError: there are checkpoints, and none is usable.
        StorageError: the storage does not answer.
    """
    rejected: list[str] = []
    for path in list_checkpoints(folder):
        try:
            return load_checkpoint(path)
        except CheckpointError as error:
            if path.exists():  # otherwise a run that is still training has deleted it
                log.warning("checkpoint rejected: %s", error)
                rejected.append(str(error))
    if rejected:
        raise CheckpointError(folder, f"none of its checkpoints is usable ({'; '.join(rejected)})")
    return None


def open_saved(path: Path) -> Checkpoint | None:
    """Open a checkpoint, or the newest usable one of a run; None if the path is neither.

    Raises:
        CheckpointError: the checkpoint is damaged, or the run has no usable one.
        StorageError: the storage does not answer.
    """
    if is_checkpoint(path):
        return load_checkpoint(path)
    folder = path / "checkpoints"
    is_run = folder.is_dir() or (path / "config.toml").is_file()
    if not is_run or (path / "config.json").exists():  # a config.json means the hub's layout
        return None
    found = find_latest(folder)
    if found is None:
        raise CheckpointError(path, "the run has no checkpoint")
    return found
