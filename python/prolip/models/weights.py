"""Reads checkpoints into a model: the hub's layout, released training checkpoints, and our own.

Loading is strict: an error names each tensor that is missing, unexpected or misshapen, with its nearest match. Pickles
may hold only tensors and plain containers.
"""

from __future__ import annotations

import difflib
import json
import logging
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from prolip.errors import UserError, fields_within, printable
from prolip.models.config import START_WITHOUT_BIAS, ModelConfig, Resize, ResizeForm
from prolip.models.convert_open_clip import released_names
from prolip.models.convert_siglip2 import siglip2_config, siglip2_network
from prolip.models.official_json import from_official_json
from prolip.models.position_tables import resize_image_positions, resize_text_positions, resize_token_table
from prolip.models.prolip import ProLIP

log = logging.getLogger(__name__)

State = dict[str, Tensor]

CONFIG_FILE = "config.json"
MODEL_FILE = "model.safetensors"
PICKLE_FILE = "pytorch_model.bin"
INFERENCE_FILE = "inference.json"
_NAMED = 12
"""In a message, at most."""
_IMAGE_POSITIONS = "visual.positional_embedding"
_TEXT_POSITIONS = "text.positional_embedding"
_TOKEN_TABLE = "text.token_embedding.weight"


class WeightsError(UserError):
    """A file is not a checkpoint, or does not fit the model; the message names the file or the tensors, one a line."""

    lines = True


# ---------------------------------------------------------------------------------------------------------------------
# From files to a state dict and a configuration


def read_folder(folder: Path, *, uncertainty: bool = True) -> tuple[State, ModelConfig]:
    """In the hub's layout, or with SigLIP 2 in that of transformers, which is converted.

    `uncertainty` adds the [UNC] parts to a converted model.
    """
    weights = folder / MODEL_FILE
    if not weights.is_file() and (folder / PICKLE_FILE).is_file():
        weights = folder / PICKLE_FILE
    for path in (folder / CONFIG_FILE, weights):
        if not path.is_file():
            raise WeightsError(
                folder,
                f"must be a run, a checkpoint or an exported folder; one of open_clip is open_clip:local-dir:{folder}",
                f"no {path.name}",
            )
    state, config = read_file(weights), read_architecture(folder / CONFIG_FILE, uncertainty=uncertainty)
    if any(name.startswith("vision_model.") for name in state):
        state = siglip2_network(state, config).state_dict()
    return state, config


def read_json(path: Path) -> dict[str, Any]:
    """An object; a WeightsError for anything else."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise WeightsError(path, f"must be JSON ({error})") from None
    if not isinstance(content, dict):
        raise WeightsError(path, "must hold a JSON object", f"a {type(content).__name__}")
    return content


def read_architecture(path: Path, *, uncertainty: bool = True) -> ModelConfig:
    """From a config.json; see `read_folder`."""
    content = read_json(path)
    with fields_within(f"{path}: "):
        if content.get("model_type") == "siglip2":
            return siglip2_config(content, uncertainty=uncertainty)
        return from_official_json(content)


def read_file(path: Path) -> State:
    """The tensors of a `.pt`, `.bin` or `.safetensors` file under official names."""
    try:
        tensors: Any = load_file(path) if path.suffix == ".safetensors" else _read_pickle(path)
    except OSError:
        raise
    except pickle.UnpicklingError:
        # Torch's own message advises to switch this check off.
        raise WeightsError(path, "not a checkpoint; must hold only tensors and plain values") from None
    except Exception as error:  # a stranger's file can raise anything
        raise WeightsError(path, f"not a checkpoint ({error})") from error
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise WeightsError(path, f"{name} must be a tensor", f"a {type(value).__name__}")
        if value.layout != torch.strided or value.nbytes > value.untyped_storage().nbytes():
            raise WeightsError(path, f"{name} must be stored in full", _shape(value))
    return dict(tensors)


def _read_pickle(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:  # torch could fail in any way on another kind of file
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("torch does not compress its files")
    content = torch.load(path, map_location="cpu", weights_only=True)
    state = content.get("state_dict") or content
    return {str(name).removeprefix("module."): value for name, value in state.items()}


# ---------------------------------------------------------------------------------------------------------------------
# From a state dict to a model


def build(config: ModelConfig, state: State, *, resize: Resize = "off") -> ProLIP:
    """In evaluation mode, on the CPU, in fp32.

    Raises:
        WeightsError: the weights do not fit the configuration. Shapes are checked before the model is allocated, except
            those of tables that are resized.
    """
    for tower, prefix, layers in (("vision", "visual", config.vision.layers), ("text", "text", config.text.layers)):
        blocks = {name.split(".")[3] for name in state if name.startswith(f"{prefix}.transformer.resblocks.")}
        if len(blocks) != layers:
            raise WeightsError(f"{tower}.layers", f"the weights have {len(blocks)}", f"{layers:,}")
    tables = () if resize == "off" else (_IMAGE_POSITIONS, _TEXT_POSITIONS, _TOKEN_TABLE, "logit_bias", "logit_scale")
    try:
        with torch.device("meta"):
            expected = ProLIP(config).state_dict()
    except (RuntimeError, OverflowError, TypeError) as error:
        raise WeightsError("model", f"no model can have these sizes ({error})") from error
    _compare(expected, state, tables)
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
            raise WeightsError(name, "must be floating-point numbers", tensor.dtype)
        if tensor.numel() and not torch.stack(torch.aminmax(tensor.float())).isfinite().all():
            raise WeightsError(name, "holds NaN or infinity")
    fitted = dict(state) if resize == "off" else fit_state(model, state, resize)
    _compare(model.state_dict(), fitted)
    model.load_state_dict(fitted, strict=True)


def _compare(expected: Mapping[str, Tensor], given: Mapping[str, Tensor], ignored: tuple[str, ...] = ()) -> None:
    problems = []
    for name in [*expected, *(name for name in given if name not in expected)]:
        if name in ignored:
            continue
        if name not in given:
            close = difflib.get_close_matches(name, [other for other in given if other not in expected], 1, cutoff=0.7)
            problems.append(f"missing    {name} {_shape(expected[name])}{f' (nearest: {close[0]})' if close else ''}")
        elif name not in expected:
            problems.append(f"unexpected {name} {_shape(given[name])}")
        elif given[name].shape != expected[name].shape:
            problems.append(f"misshapen  {name} is {_shape(given[name])}, the model's is {_shape(expected[name])}")
    if problems:
        more = [] if len(problems) <= _NAMED else [f"and {len(problems) - _NAMED} more"]
        lines = [f"  {printable(line)}" for line in [*problems[:_NAMED], *more]]
        raise WeightsError("checkpoint", "\n".join(["does not fit the model:", *lines]))


def _shape(tensor: Tensor) -> str:
    return str(list(tensor.shape))


@torch.no_grad()
def fit_state(model: ProLIP, state: Mapping[str, Tensor], form: ResizeForm) -> State:
    """`state` with its position and token tables resized for `model`; other tensors stay as they are.

    A checkpoint without a similarity bias gets the released loader's bias -10 and scale 10. The official form also
    renames the tensors of an open_clip model. Parts of these outside the blocks may differ: what the model lacks is
    left out, and what the state lacks keeps the model's values.
    """
    fitted = released_names(state) if form == "official" else dict(state)
    is_renamed = fitted.keys() != state.keys()
    own = model.state_dict()
    if "logit_bias" in own and "logit_bias" not in fitted:
        fitted.update({name: torch.tensor(value) for name, value in START_WITHOUT_BIAS.items()})
    if is_renamed:
        only = {name for name in own.keys() ^ fitted.keys() if ".resblocks." not in name}
        new, left_out = sorted(only & own.keys()), sorted(only - own.keys())
        log.info("not in the start, so new: %s\nleft out of the start: %s", ", ".join(new), ", ".join(left_out))
        fitted = {name: own[name] for name in new} | {name: fitted[name] for name in fitted.keys() - only}
    if _IMAGE_POSITIONS in fitted:
        table, grid = fitted[_IMAGE_POSITIONS].float(), model.config.vision.grid
        fitted[_IMAGE_POSITIONS] = resize_image_positions(
            table, own[_IMAGE_POSITIONS], grid, form, model.visual.num_specials
        )
    if _TEXT_POSITIONS in fitted:
        num_rows = len(own[_TEXT_POSITIONS])
        num_specials = num_rows - model.config.text.context_length
        fitted[_TEXT_POSITIONS] = resize_text_positions(fitted[_TEXT_POSITIONS].float(), num_rows, num_specials, form)
    if _TOKEN_TABLE in fitted and fitted[_TOKEN_TABLE].shape != own[_TOKEN_TABLE].shape:
        fitted[_TOKEN_TABLE] = resize_token_table(fitted[_TOKEN_TABLE], own[_TOKEN_TABLE])
    return fitted
