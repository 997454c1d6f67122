"""A run's state: which tensors it has and under which names, what else there is, and the way back."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict

from prolip.checkpoint.folder import CheckpointError, check, is_checkpoint, list_checkpoints
from prolip.checkpoint.tensors import read_into, read_whole, stored_tensors
from prolip.distributed import Ranks

log = logging.getLogger(__name__)

NOTES = "run.json"
_MODEL, _OPTIMIZER, _AVERAGE, _RNG = "model.", "optimizer.", "ema.", "rng."


class Average(Protocol):
    """Averaged weights of a model, by name."""

    def state_dict(self) -> dict[str, Tensor]:
        """The weights."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes weights over."""


@dataclass(frozen=True, kw_only=True)
class Notes:
    """What of a run's state is no tensor. Plain containers that JSON gives back equal."""

    step: int
    """Steps done."""
    world_size: int
    """Ranks that saved it."""
    elapsed_s: float
    """Seconds of training up to here, over all sittings."""
    cursor: dict[str, Any]
    """Where the loader goes on: `prolip.data.Cursor.to_dict()`."""
    config: str
    """The run's configuration as TOML."""
    model_config: dict[str, Any]
    """The model's configuration in the official JSON's form: with the weights, all that inference needs."""
    tokenizer: dict[str, Any] | None = None
    """The tokenizer that the model was trained with: `prolip.data.tokenizer.TokenizerConfig.to_dict()`."""
    keep_ratio: float | None = None
    """Share of the patches that training kept of masked images."""
    scaler: dict[str, Any] | None = None
    """State of the scaler of fp16's gradients."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on the disk, every byte of it checked. Its tensors are read when they are asked for."""

    path: Path
    """Its folder."""
    notes: Notes
    """What of it is no tensor."""

    @property
    def step(self) -> int:
        """Steps done."""
        return self.notes.step

    def weights(self) -> dict[str, Tensor]:
        """The model's state dict to infer with, official names, on the CPU: the average where the run keeps one."""
        return self.model() | self.average()

    def model(self) -> dict[str, Tensor]:
        """The state dict of the model that is trained, on the CPU."""
        return read_whole(self.path, _MODEL)

    def average(self) -> dict[str, Tensor]:
        """The averaged weights, on the CPU; empty where the run keeps none."""
        return read_whole(self.path, _AVERAGE)

    def optimizer(self) -> dict[str, Tensor]:
        """The optimiser's state by PARAMETER.KEY, on the CPU."""
        return read_whole(self.path, _OPTIMIZER)

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer, average: Average | None = None) -> None:
        """Reads the state into a model, wrapped and sharded or not, its optimiser and the average of its weights.

        Raises:
            CheckpointError: a tensor is missing or misshapen.
        """
        # Optimisers make their state in their first step: torch takes one here that changes nothing.
        wanted = run_tensors(model, optimizer, average)
        stored = stored_tensors(self.path)
        idle = {name for name in wanted if name.startswith(_OPTIMIZER) and name not in stored}
        read_into(self.path, {name: tensor for name, tensor in wanted.items() if name not in idle})
        for name, parameter in model.named_parameters():
            if any(key.startswith(f"{_OPTIMIZER}{name}.") for key in idle):  # it had no gradient yet
                optimizer.state.pop(parameter, None)
        if average is not None:
            average.load_state_dict(_named(wanted, _AVERAGE))

    def restore_rng(self, ranks: Ranks) -> None:
        """Puts this rank's random generators back, where as many ranks saved them; else leaves them as they are."""
        if self.notes.world_size == ranks.world_size:
            restore_rng(read_whole(self.path, f"{_RNG}{ranks.rank}."), ranks.device)


def run_tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer, average: Average | None = None
) -> dict[str, Tensor]:
    """The tensors of a run by name, not copied: what is written into them is written into the run."""
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
    """The states of this rank's random generators, by names of its own."""
    return {f"{_RNG}{ranks.rank}.{device}": state for device, state in rng_state(ranks.device).items()}


def rng_state(device: torch.device) -> dict[str, Tensor]:
    """States of torch's random generators that this rank uses."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_rng(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Puts torch's random generators back into a saved state."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


# ---- From a folder ----


def load_checkpoint(path: Path, *, is_checked: bool = False) -> Checkpoint:
    """The checkpoint in a folder; `is_checked` where another rank has read every byte of it already.

    Raises:
        CheckpointError: the folder is missing, damaged, or not a checkpoint of a run.
    """
    if not is_checked:
        check(path)
    try:
        return Checkpoint(path, Notes(**json.loads((path / NOTES).read_bytes())))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: {NOTES} cannot be read: {error}") from error


def find_latest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that can be used, if there is one, and why each newer one can't."""
    rejected: list[str] = []
    for path in list_checkpoints(folder):
        try:
            return load_checkpoint(path), rejected
        except CheckpointError as error:
            rejected.append(str(error))
    return None, rejected


def open_saved(path: Path) -> Checkpoint | None:
    """The checkpoint that a path leads to, be it its folder or a run's, of which it is the newest usable; None where
    it leads to neither.

    Raises:
        CheckpointError: it is damaged, or the run has no usable one.
    """
    if is_checkpoint(path):
        return load_checkpoint(path)
    folder = path / "checkpoints"
    is_run = folder.is_dir() or (path / "config.toml").is_file()
    if not is_run or (path / "config.json").exists():  # which is of the hub's layout
        return None
    found, rejected = find_latest(folder)
    for reason in rejected:
        log.warning("checkpoint rejected: %s", reason)
    if found is None:
        reasons = "".join(f"; {reason}" for reason in rejected)
        raise CheckpointError(f"{path} has no usable checkpoint{reasons}")
    return found


def _named(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def notes_json(notes: Notes) -> dict[str, Any]:
    """What `load_checkpoint` reads the notes from."""
    return asdict(notes)
