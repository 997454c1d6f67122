"""Reads checkpoints into a model: the hub's layout, released training checkpoints, and our own.

Loading is strict. An error names each tensor that is missing, unexpected or misshapen, with its nearest match. Pickles
are read with `weights_only=True`, so a file can hold only tensors and plain containers.
"""

from __future__ import annotations

import difflib
import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from prolip.errors import UserError, printable
from prolip.models.config import START_WITHOUT_BIAS, ModelConfig, Resize, ResizeForm
from prolip.models.official_json import from_official_json
from prolip.models.position_tables import resize_image_positions, resize_text_positions, resize_token_table
from prolip.models.prolip import ProLIP

State = dict[str, Tensor]

CONFIG_FILE = "config.json"
MODEL_FILE = "model.safetensors"
PICKLE_FILE = "pytorch_model.bin"
_IMAGE_POSITIONS = "visual.positional_embedding"
_TEXT_POSITIONS = "text.positional_embedding"
_TOKEN_TABLE = "text.token_embedding.weight"


class WeightsError(UserError):
    """A file is not a checkpoint, or does not fit the model; the message names the file or the tensors, one a line."""

    def __str__(self) -> str:
        return "\n".join(map(printable, ValueError.__str__(self).split("\n")))


# ---------------------------------------------------------------------------------------------------------------------
# From files to a state dict and a configuration


def read_folder(folder: Path) -> tuple[State, ModelConfig]:
    """Read a folder of the hub's layout.

    Raises:
        WeightsError: a file is missing or is not a checkpoint.
    """
    weights = folder / MODEL_FILE
    if not weights.is_file() and (folder / PICKLE_FILE).is_file():
        weights = folder / PICKLE_FILE
    for path in (folder / CONFIG_FILE, weights):
        if not path.is_file():
            other = "; for a model of open_clip, write open_clip: before hf-hub: or local-dir:"
            raise WeightsError(f"{folder} has no {path.name}, which the hub's layout needs{other}")
    config = from_official_json(json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")))
    return read_file(weights), config


def read_file(path: Path) -> State:
    """Read the tensors of a `.pt`, `.bin` or `.safetensors` file under official names.

    Raises:
        WeightsError: the file is not a checkpoint of a model.
    """
    try:
        return load_file(path) if path.suffix == ".safetensors" else _read_pickle(path)
    except (SafetensorError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{path} is no checkpoint: {error}") from error


def _read_pickle(path: Path) -> State:
    zipfile.ZipFile(path).close()  # any other kind of file could fail in torch in any way
    content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a checkpoint")
    state = content.get("state_dict") or content
    tensors = {str(name).removeprefix("module."): value for name, value in state.items()}
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise WeightsError(f"{path}: {name} is a {type(value).__name__}, not a tensor: not a checkpoint of a model")
    return tensors


# ---------------------------------------------------------------------------------------------------------------------
# From a state dict to a model


def load_state(model: ProLIP, state: Mapping[str, Tensor], *, resize: Resize = "off") -> None:
    """Copy `state` into `model`, whose tensors keep their type and device.

    Raises:
        WeightsError: a tensor is missing, unexpected or misshapen (after resizing, if asked for).
    """
    fitted = dict(state) if resize == "off" else fit_state(model, state, resize)
    expected = model.state_dict()
    problems = _mismatches(expected, fitted)
    if problems:
        raise WeightsError(
            "the checkpoint does not fit the model:\n" + "\n".join(f"  {printable(line)}" for line in problems)
        )
    model.load_state_dict(fitted, strict=True)


def _mismatches(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Return one line per tensor that is missing, unexpected or misshapen."""
    missing = [name for name in expected if name not in given]
    further = [name for name in given if name not in expected]
    problems = [f"missing    {name} {_shape(expected[name])}{_nearest(name, further)}" for name in missing]
    problems += [f"unexpected {name} {_shape(given[name])}{_nearest(name, list(expected))}" for name in further]
    for name, tensor in expected.items():
        if name in given and given[name].shape != tensor.shape:
            alike = [other for other in expected if other != name and expected[other].shape == given[name].shape]
            hint = _nearest(name, alike, " of that shape")
            problems.append(f"misshapen  {name} is {_shape(given[name])}, the model's is {_shape(tensor)}{hint}")
    return problems


def _shape(tensor: Tensor) -> str:
    return str(list(tensor.shape))


def _nearest(name: str, candidates: list[str], kind: str = "") -> str:
    close = difflib.get_close_matches(name, candidates, 1, cutoff=0.7)
    return f" (nearest{kind}: {close[0]})" if close else ""


@torch.no_grad()
def fit_state(model: ProLIP, state: Mapping[str, Tensor], form: ResizeForm) -> State:
    """Return `state` with its position and token tables resized for `model`; other tensors stay as they are.

    A checkpoint without a similarity bias gets the initial values of the released loader: bias -10 and scale 10.
    """
    fitted = dict(state)
    own = model.state_dict()
    if "logit_bias" in own and "logit_bias" not in fitted:
        fitted.update({name: torch.tensor(value) for name, value in START_WITHOUT_BIAS.items()})
    if _IMAGE_POSITIONS in fitted:
        fitted[_IMAGE_POSITIONS] = resize_image_positions(
            fitted[_IMAGE_POSITIONS].float(),
            own[_IMAGE_POSITIONS],
            model.config.vision.grid,
            form,
            model.visual.num_specials,
        )
    if _TEXT_POSITIONS in fitted:
        num_rows = len(own[_TEXT_POSITIONS])
        num_specials = num_rows - model.config.text.context_length
        fitted[_TEXT_POSITIONS] = resize_text_positions(fitted[_TEXT_POSITIONS].float(), num_rows, num_specials, form)
    if _TOKEN_TABLE in fitted and fitted[_TOKEN_TABLE].shape != own[_TOKEN_TABLE].shape:
        fitted[_TOKEN_TABLE] = resize_token_table(fitted[_TOKEN_TABLE], own[_TOKEN_TABLE])
    return fitted
