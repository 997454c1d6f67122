"""Reads checkpoints into a model: the hub's layout, released training checkpoints, and our own.

Loading is strict. An error names each tensor that is missing, unexpected or misshapen, with its nearest match. Pickles
are read with `weights_only=True`, so a file can hold only tensors and plain containers.
"""

from __future__ import annotations

import difflib
import json
import pickle
import time
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from prolip.errors import UserError, printable
from prolip.files import crc32
from prolip.models.config import START_WITHOUT_BIAS, ModelConfig, Resize, ResizeForm
from prolip.models.official_json import from_official_json
from prolip.models.position_tables import resize_image_positions, resize_text_positions, resize_token_table
from prolip.models.prolip import ProLIP

State = dict[str, Tensor]

CONFIG_FILE = "config.json"
MODEL_FILE = "model.safetensors"
PICKLE_FILE = "pytorch_model.bin"
INFERENCE_FILE = "inference.json"
_REPLACE_SECONDS = 1.0
"""Seconds within which an export replaces its files, one after another."""
_NAMED = 12
"""Largest number of tensors that a message names."""
_IMAGE_POSITIONS = "visual.positional_embedding"
_TEXT_POSITIONS = "text.positional_embedding"
_TOKEN_TABLE = "text.token_embedding.weight"


class WeightsError(UserError):
    """A file is not a checkpoint, or does not fit the model; the message names the file or the tensors, one a line."""

    def __str__(self) -> str:
        return "\n".join(map(printable, ValueError.__str__(self).split("\n")))


class ForeignFileError(WeightsError):
    """A file in an exported folder was not exported together with the others."""


# ---------------------------------------------------------------------------------------------------------------------
# From files to a state dict and a configuration


def read_folder(folder: Path) -> tuple[State, ModelConfig]:
    """Read a folder in the hub's layout; read it again if it changed meanwhile.

    Raises:
        WeightsError: a file is missing or is not a checkpoint, or the files do not belong together.
    """
    weights = folder / MODEL_FILE
    if not weights.is_file() and (folder / PICKLE_FILE).is_file():
        weights = folder / PICKLE_FILE
    for path in (folder / CONFIG_FILE, weights):
        if not path.is_file():
            raise WeightsError(
                f"{folder} has no {path.name}: a model is a run, a checkpoint or an exported folder; a folder of "
                f"open_clip is written open_clip:local-dir:{folder}"
            )
    before = _stamps(folder)
    try:
        read = _read_exported(folder, weights)
        if _stamps(folder) == before:
            return read
    except ForeignFileError:
        pass
    except (UserError, OSError):
        if _stamps(folder) == before:
            raise
    time.sleep(_REPLACE_SECONDS)  # another process is replacing the files one by one
    before = _stamps(folder)
    read = _read_exported(folder, weights)
    if _stamps(folder) != before:
        raise WeightsError(f"{folder} is being replaced: try again")
    return read


def _read_exported(folder: Path, weights: Path) -> tuple[State, ModelConfig]:
    read = read_file(weights), read_architecture(folder / CONFIG_FILE)
    _check_origin(folder)
    return read


def _stamps(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return an identity of each file in a folder, which changes if the file is replaced."""
    found: dict[str, tuple[int, ...]] = {}
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            about = path.stat()
            found[path.name] = (about.st_ino, about.st_size, about.st_mtime_ns)
    return found


def checksum(path: Path) -> int:
    """CRC-32 of a file."""
    with path.open("rb") as file:
        return crc32(file)


def _check_origin(folder: Path) -> None:
    """Check that all files were exported together, if inference.json lists their checksums.

    Raises:
        ForeignFileError: a file was not exported with the others.
    """
    listed = read_json(folder / INFERENCE_FILE).get("files", {}) if (folder / INFERENCE_FILE).is_file() else {}
    for name, expected in listed.items() if isinstance(listed, dict) else ():
        path = folder / name
        if name == path.name and path.is_file() and checksum(path) != expected:
            raise ForeignFileError(
                f"{path} is not the file that was exported with the others of its folder: export the model again, or "
                f'remove "files" from {INFERENCE_FILE} if the change is meant'
            )


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds a JSON object.

    Raises:
        WeightsError: the file holds something else.
    """
    try:
        content = json.loads(path.read_bytes())
    except RecursionError:
        raise WeightsError(f"{path} is nested too deeply") from None
    except ValueError as error:
        raise WeightsError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} does not hold a JSON object")
    return content


def read_architecture(path: Path) -> ModelConfig:
    """Read a config.json.

    Raises:
        WeightsError: it is not the configuration of a model.
    """
    try:
        return from_official_json(read_json(path))
    except WeightsError:
        raise
    except UserError as error:
        raise WeightsError(f"{path}: {error}") from error


def read_file(path: Path) -> State:
    """Read the tensors of a `.pt`, `.bin` or `.safetensors` file under official names.

    Raises:
        WeightsError: the file is not a checkpoint of a model.
    """
    try:
        return load_file(path) if path.suffix == ".safetensors" else _read_pickle(path)
    except (WeightsError, OSError):
        raise
    except pickle.UnpicklingError:
        # Torch's own message advises to switch the check off, which would run code from the file.
        raise WeightsError(f"{path} is not a checkpoint: it holds more than tensors and plain values") from None
    except Exception as error:  # a stranger's file can raise anything
        raise WeightsError(f"{path} is not a checkpoint: {error}") from error


def _read_pickle(path: Path) -> State:
    with zipfile.ZipFile(path) as archive:  # torch could fail in any way on another kind of file
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise WeightsError(f"{path} is not a checkpoint: torch does not compress its files")
    content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a checkpoint")
    state = content.get("state_dict") or content
    if not isinstance(state, Mapping):
        raise WeightsError(f"{path}: state_dict is a {type(state).__name__}, not a table of tensors")
    tensors = {str(name).removeprefix("module."): value for name, value in state.items()}
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise WeightsError(f"{path}: {name} is a {type(value).__name__}, not a tensor: not a checkpoint of a model")
        if value.layout != torch.strided or value.nbytes > value.untyped_storage().nbytes():
            raise WeightsError(f"{path}: {name} of shape {_shape(value)} is not stored in full")
    return tensors


# ---------------------------------------------------------------------------------------------------------------------
# From a state dict to a model


def build(config: ModelConfig, state: State, *, resize: Resize = "off") -> ProLIP:
    """Build the model of a configuration with these weights, in evaluation mode, on the CPU, in fp32.

    Raises:
        WeightsError: the weights do not fit the configuration. Shapes are checked before the model is allocated, except
            those of tables that are resized.
    """
    for tower, prefix, layers in (("vision", "visual", config.vision.layers), ("text", "text", config.text.layers)):
        blocks = {name.split(".")[3] for name in state if name.startswith(f"{prefix}.transformer.resblocks.")}
        if len(blocks) != layers:
            raise WeightsError(f"{tower}.layers is {layers:,} in the configuration, but the weights have {len(blocks)}")
    tables = () if resize == "off" else (_IMAGE_POSITIONS, _TEXT_POSITIONS, _TOKEN_TABLE, "logit_bias", "logit_scale")
    try:
        with torch.device("meta"):
            expected = ProLIP(config).state_dict()
    except (RuntimeError, OverflowError, TypeError) as error:
        raise WeightsError(f"no model can have the sizes of this configuration: {error}") from error
    _compare(
        {name: tensor for name, tensor in expected.items() if name not in tables},
        {name: tensor for name, tensor in state.items() if name not in tables},
    )
    model = ProLIP(config)
    load_state(model, state, resize=resize)
    return model.eval()


def load_state(model: ProLIP, state: Mapping[str, Tensor], *, resize: Resize = "off") -> None:
    """Copy `state` into `model`, whose tensors keep their type and device.

    Raises:
        WeightsError: a tensor is missing, unexpected or misshapen (after resizing, if asked for), holds NaN or
            infinity, or is not floating-point.
    """
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            raise WeightsError(f"{name} is {tensor.dtype}: weights must be floating-point numbers")
        if tensor.numel() and not torch.stack(torch.aminmax(tensor.float())).isfinite().all():
            raise WeightsError(f"{name} holds NaN or infinity")
    fitted = dict(state) if resize == "off" else fit_state(model, state, resize)
    _compare(model.state_dict(), fitted)
    model.load_state_dict(fitted, strict=True)


def _compare(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    problems = _mismatches(expected, given)
    if problems:
        more = [] if len(problems) <= _NAMED else [f"and {len(problems) - _NAMED} more"]
        lines = [f"  {printable(line)}" for line in [*problems[:_NAMED], *more]]
        raise WeightsError("the checkpoint does not fit the model:\n" + "\n".join(lines))


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
