"""Checkpoints of a model: the hub's layout, the released training files, and our own.

Loading is strict: a missing, further or misshapen tensor is named together with its nearest match. Pickles are read
with `weights_only=True`, so that a file can hold nothing but tensors and plain containers.
"""

from __future__ import annotations

import difflib
import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from prolip.models.architectures import START_WITHOUT_BIAS, ModelConfig, from_official_json
from prolip.models.prolip import ProLIP
from prolip.models.resize import ResizeForm, resize_image_positions, resize_text_positions, resize_token_table

if TYPE_CHECKING:
    from prolip.checkpoint import Checkpoint

Resize = Literal["off"] | ResizeForm
State = dict[str, Tensor]

HUB_PREFIX = "hf-hub:"
OPEN_CLIP_PREFIX = "open_clip:"
CONFIG_FILE = "config.json"
MODEL_FILE = "model.safetensors"
_PICKLE_FILE = "pytorch_model.bin"
_IMAGE_POSITIONS = "visual.positional_embedding"
_TEXT_POSITIONS = "text.positional_embedding"
_TOKEN_TABLE = "text.token_embedding.weight"


class WeightsError(ValueError):
    """A checkpoint that does not fit the model, or is none; the message names tensors or the file."""


# ---------------------------------------------------------------------------------------------------------------------
# From files to a state dict and a configuration


def load(source: str | Path, *, config: ModelConfig | None = None, resize: Resize = "off") -> ProLIP:
    """The model in `source`, in evaluation mode, on the CPU, in single precision.

    `source` is one of

    - "hf-hub:organisation/name", or "hf-hub:organisation/name@revision": a repository in the hub's layout,
    - a folder of that layout (config.json and model.safetensors, or else pytorch_model.bin),
    - a run's folder, whose newest usable checkpoint is taken, or a checkpoint's,
    - "open_clip:NAME/TAG", "open_clip:NAME/FILE" or "open_clip:hf-hub:organisation/name": a model of open_clip, whose
      towers are taken over and whose [UNC] parts are new (`prolip.models.open_clip_start`),
    - a `.pt`, `.bin` or `.safetensors` file: a released `epoch_N.pt`, or a bare state dict.

    `config` gives the architecture where the source carries none, and overrides the one it carries. With `resize`,
    tables of another size are fitted (`prolip.models.resize`).

    Raises:
        WeightsError: the source is not a checkpoint, carries no architecture, or does not fit it.
    """
    state, found = read_checkpoint(source)
    config = config or found
    if config is None:
        raise WeightsError(f"{source} carries no architecture: pass config=ARCHITECTURES[name]")
    model = ProLIP(config)
    load_state(model, state, resize=resize)
    return model.eval()


def new_model(config: ModelConfig, start_from: str | None = None, resize: Resize = "off") -> ProLIP:
    """A model to train: freshly initialised, or with the weights of `start_from` (see `load`), which must fit."""
    model = ProLIP(config)
    if start_from is not None:
        load_state(model, read_checkpoint(start_from)[0], resize=resize)
    return model


def read_config(source: str | Path) -> ModelConfig:
    """The architecture of `source` (see `load`), without its tensors where a folder or a repository keeps them apart.

    Raises:
        WeightsError: the source is no checkpoint, or carries no architecture.
    """
    folder = Path(source)
    if isinstance(source, str) and source.startswith(HUB_PREFIX):
        folder = _snapshot(source.removeprefix(HUB_PREFIX), [CONFIG_FILE])
    if (folder / CONFIG_FILE).is_file():
        return from_official_json(json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")))
    saved = _open_saved(folder)
    config = read_checkpoint(source)[1] if saved is None else from_official_json(saved.notes.model_config)
    if config is None:
        raise WeightsError(f"{source} carries no architecture")
    return config


def read_beside(source: str | Path, name: str) -> Path | None:
    """The file of that name in a folder or a hub repository (see `load`); None where there is none."""
    folder = Path(source)
    if isinstance(source, str) and source.startswith(HUB_PREFIX):
        folder = _snapshot(source.removeprefix(HUB_PREFIX), [name])
    return folder / name if (folder / name).is_file() else None


def read_checkpoint(source: str | Path) -> tuple[State, ModelConfig | None]:
    """The tensors in `source` under official names, and the architecture where it carries one; see `load`."""
    if isinstance(source, str) and source.startswith(HUB_PREFIX):
        return _read_folder(_download(source.removeprefix(HUB_PREFIX)))
    if isinstance(source, str) and source.startswith(OPEN_CLIP_PREFIX):
        return _read_open_clip(source.removeprefix(OPEN_CLIP_PREFIX))
    path = Path(source)
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise WeightsError(f"{source} is neither a file nor a folder; a hub repository is written {HUB_PREFIX}org/name")
    return _read_file(path), None


def _download(repository: str) -> Path:
    """The local folder of a hub repository's checkpoint; a pickle is fetched only for want of a safetensors file."""
    for weights in (MODEL_FILE, _PICKLE_FILE):
        folder = _snapshot(repository, [CONFIG_FILE, weights])
        if (folder / weights).is_file():
            break
    return folder


def _snapshot(repository: str, names: list[str]) -> Path:
    """The local folder of a hub repository's files of these names; "name@revision" names a revision."""
    from huggingface_hub import snapshot_download

    name, _, revision = repository.partition("@")
    return Path(snapshot_download(name, revision=revision or None, allow_patterns=names))


def _read_open_clip(named: str) -> tuple[State, ModelConfig]:
    """The towers of an open_clip model beside new [UNC] parts."""
    from prolip.models.open_clip_start import build_named, start_from

    model = start_from(build_named(named)[1])
    return model.state_dict(), model.config


def _read_folder(folder: Path) -> tuple[State, ModelConfig | None]:
    """What a folder of the hub's layout, a run's folder or a checkpoint holds."""
    saved = _open_saved(folder)
    if saved is not None:
        return saved.weights(), from_official_json(saved.notes.model_config)
    weights = folder / MODEL_FILE
    if not weights.is_file() and (folder / _PICKLE_FILE).is_file():
        weights = folder / _PICKLE_FILE
    for path in (folder / CONFIG_FILE, weights):
        if not path.is_file():
            other = "; for a model of open_clip, write open_clip: before hf-hub: or local-dir:"
            raise WeightsError(f"{folder} has no {path.name}, which the hub's layout needs{other}")
    config = from_official_json(json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")))
    return _read_file(weights), config


def _open_saved(folder: Path) -> Checkpoint | None:
    """The checkpoint that a folder is or, being a run's, has."""
    if (folder / CONFIG_FILE).is_file():
        return None
    from prolip.checkpoint import open_saved  # it takes about a third of the time that torch itself does

    return open_saved(folder)


def _read_file(path: Path) -> State:
    try:
        return load_file(path) if path.suffix == ".safetensors" else _read_pickle(path)
    except (SafetensorError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{path} is no checkpoint: {error}") from error


def _read_pickle(path: Path) -> State:
    zipfile.ZipFile(path).close()  # what torch makes of a file of another kind is anybody's guess
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
        WeightsError: a tensor is missing, further or misshapen, after resizing where that was asked for.
    """
    fitted = dict(state) if resize == "off" else fit_state(model, state, resize)
    expected = model.state_dict()
    problems = _mismatches(expected, fitted)
    if problems:
        raise WeightsError("the checkpoint does not fit the model:\n" + "\n".join(f"  {line}" for line in problems))
    model.load_state_dict(fitted, strict=True)


def _mismatches(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """One line for each tensor that is missing, further or misshapen."""
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
    """`state` with its position and token tables fitted to `model`; other tensors stay as they are.

    A checkpoint without similarity bias gets the released loader's start: bias -10 and scale 10.
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
