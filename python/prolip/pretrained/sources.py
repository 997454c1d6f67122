"""Load a model from any source: the hub, a folder, a run, a checkpoint, a file, or open_clip."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prolip.models.config import ModelConfig, Resize
from prolip.models.official_json import from_official_json
from prolip.models.open_clip import build_named, start_from
from prolip.models.prolip import ProLIP
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

if TYPE_CHECKING:
    from prolip.checkpoint import Checkpoint

HUB_PREFIX = "hf-hub:"
OPEN_CLIP_PREFIX = "open_clip:"


def load(source: str | Path, *, config: ModelConfig | None = None, resize: Resize = "off") -> ProLIP:
    """Load a model in evaluation mode, on the CPU, in fp32.

    `source` is one of

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

    Raises:
        WeightsError: the source is not a checkpoint, has no architecture, or does not match it.
    """
    state, found = read_checkpoint(source)
    config = config or found
    if config is None:
        raise WeightsError(f"{source} carries no architecture: pass config=ARCHITECTURES[name]")
    return build(config, state, resize=resize)


def new_model(config: ModelConfig, start_from: str | None = None, resize: Resize = "off") -> ProLIP:
    """Build a model to train, with new weights or with those of `start_from` (see `load`), which must match."""
    model = ProLIP(config)
    if start_from is not None:
        load_state(model, read_checkpoint(start_from)[0], resize=resize)
    return model


def read_config(source: str | Path) -> ModelConfig:
    """Read the architecture of `source` (see `load`), without its tensors if these are in a separate file.

    Raises:
        WeightsError: the source is not a checkpoint, or has no architecture.
    """
    folder = Path(source)
    if isinstance(source, str) and source.startswith(HUB_PREFIX):
        folder = _snapshot(source.removeprefix(HUB_PREFIX), [CONFIG_FILE])
    if (folder / CONFIG_FILE).is_file():
        return read_architecture(folder / CONFIG_FILE)
    saved = _open_saved(folder)
    config = read_checkpoint(source)[1] if saved is None else from_official_json(saved.notes.model_config)
    if config is None:
        raise WeightsError(f"{source} carries no architecture")
    return config


def read_beside(source: str | Path, name: str) -> Path | None:
    """Find a file in a folder or hub repository (see `load`), and return its local path; None if there is none."""
    folder = Path(source)
    if isinstance(source, str) and source.startswith(HUB_PREFIX):
        folder = _snapshot(source.removeprefix(HUB_PREFIX), [name])
    return folder / name if (folder / name).is_file() else None


def read_checkpoint(source: str | Path) -> tuple[State, ModelConfig | None]:
    """Read the tensors of `source` (see `load`) under official names, and its architecture if it has one."""
    if isinstance(source, str) and source.startswith(HUB_PREFIX):
        return read_folder(_download(source.removeprefix(HUB_PREFIX)))
    if isinstance(source, str) and source.startswith(OPEN_CLIP_PREFIX):
        model = start_from(build_named(source.removeprefix(OPEN_CLIP_PREFIX))[1])
        return model.state_dict(), model.config
    path = Path(source)
    if path.is_dir():
        saved = None if (path / CONFIG_FILE).is_file() else _read_saved(path)
        if saved is not None:
            return saved[1], from_official_json(saved[0].notes.model_config)
        return read_folder(path)
    if not path.is_file():
        raise WeightsError(f"{source} is neither a file nor a folder; a hub repository is written {HUB_PREFIX}org/name")
    return read_file(path), None


def _open_saved(folder: Path) -> Checkpoint | None:
    """The checkpoint in a folder, or the newest one of a run's folder; None if it is neither."""
    if (folder / CONFIG_FILE).is_file():
        return None
    from prolip.checkpoint import open_saved  # torch.distributed.checkpoint takes long to import

    return open_saved(folder)


def _read_saved(folder: Path) -> tuple[Checkpoint, State] | None:
    from prolip.checkpoint import read_weights  # as above

    return read_weights(folder)


def _download(repository: str) -> Path:
    """Download a hub repository's checkpoint; a pickle only if there is no safetensors file."""
    for weights in (MODEL_FILE, PICKLE_FILE):
        folder = _snapshot(repository, [CONFIG_FILE, weights])
        if (folder / weights).is_file():
            break
    return folder


def _snapshot(repository: str, names: list[str]) -> Path:
    """Download files of a hub repository ("name@revision" for a revision), and return the local folder."""
    from huggingface_hub import snapshot_download

    name, _, revision = repository.partition("@")
    return Path(snapshot_download(name, revision=revision or None, allow_patterns=names))
