"""Read a network from any source: the hub, a folder, a run, a checkpoint, a file, or open_clip."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from prolip.errors import UserError
from prolip.models.config import ModelConfig, Resize
from prolip.models.official_json import from_official_json
from prolip.models.open_clip import start_from
from prolip.models.prolip import ProLIP
from prolip.models.released import find_released, list_models
from prolip.models.weights import (
    CONFIG_FILE,
    MODEL_FILE,
    PICKLE_FILE,
    State,
    WeightsError,
    build,
    load_state,
    read_architecture,
    read_file,
    read_folder,
)
from prolip.pretrained.build_open_clip import build_named
from prolip.pretrained.download import DownloadError, hub_file

if TYPE_CHECKING:
    from prolip.checkpoint import Checkpoint

HUB_PREFIX = "hf-hub:"
OPEN_CLIP_PREFIX = "open_clip:"


def hub_repository(source: str | Path) -> str | None:
    """The hub repository that a source names, "OWNER/NAME" or "OWNER/NAME@REVISION"; None if it names none.

    A source is a repository if it begins with "hf-hub:", or is the name of a released model and no file or folder.
    """
    if isinstance(source, Path):
        return None
    if source.startswith(HUB_PREFIX):
        return source.removeprefix(HUB_PREFIX)
    name, _, revision = source.partition("@")
    released = find_released(name)
    if released is None or Path(source).exists():
        return None
    return f"{released.repository}@{revision}" if revision else released.repository


def check_source(source: str) -> None:
    """Check that a text names a model, before long work begins; opening the model may still fail.

    Raises:
        WeightsError: it is no repository, there is no such path, and it is not of open_clip.
    """
    if hub_repository(source) is None and not source.startswith(OPEN_CLIP_PREFIX) and not Path(source).exists():
        raise WeightsError(_unknown(source))


def load_network(
    source: str | Path,
    *,
    config: ModelConfig | None = None,
    resize: Resize = "off",
    cache_dir: str | Path | None = None,
) -> ProLIP:
    """Load a bare ProLIP network in evaluation mode, on the CPU, in fp32. `prolip.load` opens the whole model.

    `source` is one of

    - the name of a released model (`prolip.list_models`),
    - "hf-hub:organisation/name", or "hf-hub:organisation/name@revision": a repository in the hub's layout,
    - a folder in that layout (config.json with model.safetensors or pytorch_model.bin),
    - the folder of a run (its newest usable checkpoint), or of a checkpoint,
    - "open_clip:NAME/TAG", "open_clip:NAME/FILE" or "open_clip:hf-hub:organisation/name": the towers of a model of
      open_clip, with new [UNC] parts (`prolip.models.open_clip`),
    - a `.pt`, `.bin` or `.safetensors` file: a released `epoch_N.pt`, or a bare state dict.

    Args:
        source: where the model is.
        config: the architecture. Needed if the source has none; overrides the one it has.
        resize: whether and how position and token tables of another size are fitted (`prolip.models.position_tables`).
        cache_dir: folder for downloads; None for huggingface_hub's.

    Raises:
        WeightsError: the source is not a checkpoint, has no architecture, or does not match it.
        DownloadError: a file is neither in the cache nor can be downloaded.
    """
    state, found = read_checkpoint(source, cache_dir)
    config = config or found
    if config is None:
        folder = Path(source).parent
        whole = f"name its folder {folder}" if (folder / CONFIG_FILE).is_file() else "pass config=ARCHITECTURES[name]"
        raise WeightsError(f"{source} carries no architecture: {whole}")
    try:
        return build(config, state, resize=resize)
    except WeightsError as error:
        raise WeightsError(f"{source}: {error}") from error


def build_saved(saved: Checkpoint, state: State) -> ProLIP:
    """Build the model of a run's checkpoint with these weights (see `build`).

    Raises:
        WeightsError: the checkpoint's configuration cannot be read, or does not fit the weights.
    """
    config = saved_architecture(saved)
    try:
        return build(config, state)
    except WeightsError as error:
        raise WeightsError(f"{saved.path}: {error}") from error


def saved_architecture(saved: Checkpoint) -> ModelConfig:
    """The architecture of a run's checkpoint.

    Raises:
        WeightsError: it has none that this version knows.
    """
    try:
        return from_official_json(saved.notes.model_config)
    except UserError as error:
        raise WeightsError(f"{saved.path}: run.json: {error}") from error


def new_model(config: ModelConfig, start_from: str | None = None, resize: Resize = "off") -> ProLIP:
    """Build a model to train, with new weights or with those of `start_from` (see `load_network`), which must match."""
    model = ProLIP(config)
    if start_from is not None:
        state = read_checkpoint(start_from)[0]
        try:
            load_state(model, state, resize=resize)
        except WeightsError as error:
            hint = "write --architecture start_from for the start's own architecture"
            raise WeightsError(f"start_from is {start_from}: {error}\n{hint}") from error
    return model


def read_config(source: str | Path) -> ModelConfig:
    """Read the architecture of `source` (see `load_network`), without its tensors if these are in a separate file.

    Raises:
        WeightsError: the source is not a checkpoint, or has no architecture.
        DownloadError: a file is neither in the cache nor can be downloaded.
    """
    repository = hub_repository(source)
    found = Path(source) / CONFIG_FILE if repository is None else _needed(repository, CONFIG_FILE, None)
    if found.is_file():
        return read_architecture(found)
    from prolip.checkpoint import open_saved  # torch.distributed.checkpoint takes long to import

    saved = open_saved(Path(source))
    config = read_checkpoint(source)[1] if saved is None else saved_architecture(saved)
    if config is None:
        raise WeightsError(f"{source} carries no architecture")
    return config


def read_beside(source: str | Path, name: str, cache_dir: str | Path | None = None) -> Path | None:
    """Find a file in a folder or hub repository (see `load_network`): its local path; None if there is none."""
    repository = hub_repository(source)
    if repository is not None:
        return hub_file(repository, name, cache_dir)
    return Path(source) / name if (Path(source) / name).is_file() else None


def read_checkpoint(source: str | Path, cache_dir: str | Path | None = None) -> tuple[State, ModelConfig | None]:
    """Read the tensors of a source (see `load_network`) under official names, and its architecture if it has one."""
    repository = hub_repository(source)
    if repository is not None:
        return read_folder(_download(repository, cache_dir))
    if isinstance(source, str) and source.startswith(OPEN_CLIP_PREFIX):
        model = start_from(build_named(source.removeprefix(OPEN_CLIP_PREFIX), cache_dir)[1])
        return model.state_dict(), model.config
    path = Path(source)
    if path.is_dir():
        if not (path / CONFIG_FILE).is_file():
            from prolip.checkpoint import read_weights  # torch.distributed.checkpoint takes long to import

            saved = read_weights(path)
            if saved is not None:
                return saved[1], saved_architecture(saved[0])
        return read_folder(path)
    if not path.is_file():
        raise WeightsError(_unknown(str(source)))
    return read_file(path), None


def _unknown(source: str) -> str:
    """The message for a source that names no model."""
    names = [model.name for model in list_models()]
    word = source.rpartition("/")[2]
    begun = [name for name in names if len(word) > 3 and name.startswith(word)]
    close = begun or difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"{source} is neither a file nor a folder: did you mean the released model {close[0]!r}?"
    hint = f": a hub repository is written {HUB_PREFIX}{source}" if re.fullmatch(r"[\w.-]+/[\w.-]+", source) else ""
    return f"{source} is neither a file nor a folder, nor a released model (prolip.list_models()){hint}"


def _download(repository: str, cache_dir: str | Path | None) -> Path:
    """Download a hub repository's checkpoint; a pickle only if there is no safetensors file."""
    folder = _needed(repository, CONFIG_FILE, cache_dir).parent
    refused: UserError = WeightsError(f"{repository} has neither {MODEL_FILE} nor {PICKLE_FILE}")
    for weights in (MODEL_FILE, PICKLE_FILE):
        try:
            if hub_file(repository, weights, cache_dir) is not None:
                return folder
        except DownloadError as error:  # offline the cache may have the pickle alone
            refused = error
    raise refused


def _needed(repository: str, name: str, cache_dir: str | Path | None) -> Path:
    found = hub_file(repository, name, cache_dir)
    if found is None:
        other = f"; for a model of open_clip, write {OPEN_CLIP_PREFIX}{HUB_PREFIX}{repository}"
        raise WeightsError(f"{repository} has no {name}, which the hub's layout needs{other}")
    return found
