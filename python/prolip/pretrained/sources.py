"""`Source`: what a `--checkpoint` text names, with the files, weights and architecture behind it."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from prolip.checkpoint import Checkpoint, open_saved
from prolip.data.config import TokenizerConfig
from prolip.errors import UserError, check, fields_within
from prolip.models.adapter import ADAPTER_FILE, ADAPTER_WEIGHTS, Adapter, Frozen, read_adapter
from prolip.models.aligned import ALIGNED_FILE, ALIGNED_WEIGHTS, Encoders, Heads, read_aligned
from prolip.models.config import ModelConfig, Resize
from prolip.models.convert_open_clip import start_from
from prolip.models.official_json import from_official_json
from prolip.models.prolip import ProLIP
from prolip.models.released import find_released, list_models
from prolip.models.weights import (
    CONFIG_FILE,
    INFERENCE_FILE,
    MODEL_FILE,
    PICKLE_FILE,
    State,
    WeightsError,
    build,
    load_state,
    read_architecture,
    read_file,
    read_folder,
    read_json,
)
from prolip.pretrained.build_with_open_clip import build_named
from prolip.pretrained.download import hub_file
from prolip.store.atomic_writes import write_atomic

HUB_PREFIX = "hf-hub:"
OPEN_CLIP_PREFIX = "open_clip:"
_LOCAL_OPEN_CLIP = f"{OPEN_CLIP_PREFIX}local-dir:"
_WEIGHTS = {".bin", ".pt", ".pth", ".safetensors"}
"""Extensions of FILE in open_clip:NAME/FILE."""


class InferenceSettings(NamedTuple):
    """What a checkpoint (run.json) or an exported folder (inference.json) stores besides the architecture."""

    tokenizer: TokenizerConfig | None
    """Its path is the name of a file of the model."""
    images: dict[str, Any] | None
    """How images are prepared (`Preprocess.settings`); None if unknown."""
    keep_ratio: float | None
    """Of patches that training kept of masked images; None if unknown."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Made by `resolve`; exactly one of `path`, `repository` and `open_clip` is set."""

    name: str
    path: Path | None = None
    """A file or folder: weights, a run, a checkpoint, an exported or an adapted model."""
    repository: str | None = None
    """A hub repository, "OWNER/NAME" or "OWNER/NAME@REVISION"."""
    open_clip: str | None = None
    """The model's name in open_clip, as `build_named` takes it."""
    cache_dir: str | Path | None = None
    """None for huggingface_hub's."""

    @property
    def is_released(self) -> bool:
        """Released repositories hold weights and architecture only."""
        return self.repository is not None and find_released(self.repository.partition("@")[0]) is not None

    def find(self, name: str) -> Path | None:
        """The local path of its file, downloaded if necessary; None if there is none."""
        if self.repository is not None:
            return hub_file(self.repository, name, self.cache_dir)
        return self.path / name if self.path is not None and (self.path / name).is_file() else None

    @cached_property
    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint, or the run's newest usable one, verified; None for another source."""
        return None if self.path is None else open_saved(self.path)

    @cached_property
    def adapter(self) -> tuple[Adapter, Frozen, Path] | None:
        """The adapter, its frozen model, and its folder; None for another model."""
        if self.is_released or (self.repository is not None and self.find(CONFIG_FILE) is not None):
            return None
        described = self.find(ADAPTER_FILE)
        if described is None:
            return None
        weights = self.find(ADAPTER_WEIGHTS)
        if weights is None:
            raise WeightsError(self.name, f"{ADAPTER_WEIGHTS} is missing")
        return *read_adapter(described, weights), described.parent

    @cached_property
    def aligned(self) -> tuple[Heads, Encoders, Path] | None:
        """The heads of two frozen encoders, these, and the folder; None for another model."""
        if self.path is None or (described := self.find(ALIGNED_FILE)) is None:
            return None
        weights = self.find(ALIGNED_WEIGHTS)
        if weights is None:
            raise WeightsError(self.name, f"{ALIGNED_WEIGHTS} is missing")
        return *read_aligned(described, weights), described.parent

    @cached_property
    def settings(self) -> InferenceSettings | None:
        """Stored with the weights; None if there are none."""
        if self.checkpoint is not None:
            place, notes = self.checkpoint.path / "run.json", self.checkpoint.notes
            content = {name: getattr(notes, name) for name in InferenceSettings._fields}
        else:
            file = None if self.is_released else self.find(INFERENCE_FILE)
            if file is None:
                return None
            place, content = file, read_json(file)
        try:
            tokenizer, images, keep_ratio = (content[name] for name in InferenceSettings._fields)
            known = None if tokenizer is None else TokenizerConfig.from_dict(tokenizer)
        except (ValueError, KeyError, TypeError) as error:
            raise WeightsError(place, f"must hold the settings of a model ({error!r})") from error
        return InferenceSettings(known, images, keep_ratio)

    def architecture(self) -> ModelConfig:
        """Without reading the tensors, if possible.

        Raises:
            UserError: the source is not a model, or has no architecture, or a wrong one.
            DownloadError: a file is neither in the cache nor can be downloaded.
        """
        if self.checkpoint is not None:
            with fields_within(f"{self.checkpoint.path}: run.json: "):
                return from_official_json(self.checkpoint.notes.model_config)
        file = self.find(CONFIG_FILE)
        if file is not None:
            return read_architecture(file)
        config = self.read()[1]
        if config is None:
            raise WeightsError(self.name, "has no architecture")
        return config

    def read(
        self, *, averaged: bool = True, converted: bool = True, uncertainty: bool = True
    ) -> tuple[State, ModelConfig | None]:
        """The tensors under official names, and the architecture; None if the source has none.

        Args:
            averaged: whether to read a run's moving average, if it keeps one.
            converted: whether to convert a model of open_clip, or return its tensors as they are.
            uncertainty: add the [UNC] parts to a model of open_clip or transformers.

        Raises:
            WeightsError: the source is not a model.
            DownloadError: a file is neither in the cache nor can be downloaded.
        """
        if self.aligned is not None:
            raise WeightsError(self.name, "its encoders are of other libraries: it cannot be exported or trained")
        if self.open_clip is not None:
            built = build_named(self.open_clip, self.cache_dir)[1]
            if not converted:
                return built.state_dict(), None
            model = start_from(built, uncertainty=uncertainty)
            return model.state_dict(), model.config
        if self.checkpoint is not None:
            state = self.checkpoint.weights() if averaged else self.checkpoint.model()
            return state, self.architecture()
        if self.repository is None:
            assert self.path is not None
            if self.path.is_file():
                return read_file(self.path), None
            return read_folder(self.path, uncertainty=uncertainty)
        config = self.find(CONFIG_FILE)
        if config is None:
            other = f"a model of open_clip is written {OPEN_CLIP_PREFIX}{HUB_PREFIX}{self.repository}"
            raise WeightsError(self.repository, f"{CONFIG_FILE} is missing; {other}")
        if self.find(MODEL_FILE) is None and self.find(PICKLE_FILE) is None:
            raise WeightsError(self.repository, f"{MODEL_FILE} and {PICKLE_FILE} are missing")
        return read_folder(config.parent, uncertainty=uncertainty)

    def network(
        self,
        config: ModelConfig | None = None,
        *,
        resize: Resize = "off",
        averaged: bool = True,
        uncertainty: bool = True,
    ) -> ProLIP:
        """See `load_network` and `read`."""
        state, found = self.read(averaged=averaged, uncertainty=uncertainty)
        config = config or found
        if config is None:
            assert self.path is not None
            folder = self.path.parent
            whole = f"name its folder {folder}" if (folder / CONFIG_FILE).is_file() else "pass config=ARCHITECTURES[..]"
            raise WeightsError(self.name, f"has no architecture; {whole}")
        with fields_within(f"{self.checkpoint.path if self.checkpoint else self.name}: "):
            return build(config, state, resize=resize)


def resolve(source: str | Path, cache_dir: str | Path | None = None) -> Source:
    """What a source names, in the forms of `prolip.load`. Its files are read later, on request.

    Raises:
        WeightsError: it names neither a file nor a folder, a released model, a repository or a model of open_clip.
    """
    name = str(source)
    if name.startswith(OPEN_CLIP_PREFIX):
        return Source(name=name, open_clip=name.removeprefix(OPEN_CLIP_PREFIX), cache_dir=cache_dir)
    if name.startswith(HUB_PREFIX):
        return Source(name=name, repository=name.removeprefix(HUB_PREFIX), cache_dir=cache_dir)
    if Path(name).exists():
        return Source(name=name, path=Path(name))
    model, at, revision = name.partition("@")
    if (released := find_released(model)) is not None:
        return Source(name=name, repository=f"{released.repository}{at}{revision}", cache_dir=cache_dir)
    close = difflib.get_close_matches(name.rpartition("/")[2], [model.name for model in list_models()], 1)
    hint = f"did you mean {close[0]!r}?" if close else f"a hub repository is written {HUB_PREFIX}OWNER/NAME"
    raise WeightsError(name, f"neither a file nor a folder, nor a released model; {hint}")


def load_network(
    source: str | Path,
    *,
    config: ModelConfig | None = None,
    resize: Resize = "off",
    cache_dir: str | Path | None = None,
) -> ProLIP:
    """Load a bare ProLIP network in evaluation mode, on the CPU, in fp32. `prolip.load` opens the whole model.

    Args:
        source: any source of `prolip.load` except an adapted model. "open_clip:..." gives the towers of a model of
            open_clip with new [UNC] parts (`prolip.models.convert_open_clip`).
        config: the architecture. Needed if the source has none; overrides the one it has.
        resize: whether and how position and token tables of another size are fitted (`prolip.models.position_tables`).
        cache_dir: folder for downloads; None for huggingface_hub's.

    Raises:
        WeightsError: the source is not a model, has no architecture, or does not match it.
        DownloadError: a file is neither in the cache nor can be downloaded.
    """
    return resolve(source, cache_dir).network(config, resize=resize)


def new_model(config: ModelConfig, start_from: str | None = None, resize: Resize = "off") -> ProLIP:
    """Build a model to train, with new weights or with those of `start_from` (see `load_network`), which must match.

    With the official `resize` and the released architecture, a model of open_clip is read as by the released loader
    (`prolip.models.weights.fit_state`).
    """
    model = ProLIP(config)
    if start_from is not None:
        converted = resize != "official" or not config.text.embed_cls
        try:
            load_state(model, resolve(start_from).read(converted=converted)[0], resize=resize)
        except WeightsError as error:
            hint = "--architecture start_from takes the start's own architecture"
            raise WeightsError("start_from", f"{error}\n{hint}", start_from) from error
    return model


def read_config(source: str | Path) -> ModelConfig:
    """See `Source.architecture`."""
    return resolve(source).architecture()


def write_settings(folder: Path, settings: InferenceSettings) -> None:
    """Write the inference.json of an exported folder."""
    tokenizer = None if settings.tokenizer is None else settings.tokenizer.to_dict()
    write_atomic(folder / INFERENCE_FILE, json.dumps(settings._asdict() | {"tokenizer": tokenizer}, indent=2))


# ---- Sources that other models name ---------------------------------------------------------------------------------


def absolute_source(source: str) -> str:
    """A model source, with an absolute path if it is a path on this machine, where it must exist."""
    prefix, path = _split_path(source)
    if path is None:
        return source
    check(path.exists(), "checkpoint", "the model that made the embeddings must exist", source)
    return f"{prefix}{path.absolute()}"


def find_frozen(frozen: Frozen, folder: Path) -> str:
    """The source of an adapter's frozen model, which may have moved into the adapter's folder or beside it.

    Raises:
        UserError: the source is a path, and the model is in none of these places.
    """
    if frozen.source is None:
        raise UserError(folder, "was adapted to vectors of an unknown model: it serves `prolip import` alone")
    prefix, path = _split_path(frozen.source)
    if path is None:
        return frozen.source
    for place in (path, folder / path.name, folder.absolute().parent / path.name):
        if place.exists():
            return f"{prefix}{place}"
    raise UserError(
        folder / ADAPTER_FILE,
        f'the frozen model {frozen.source} is missing: move it into that folder or beside it, or change "source"',
    )


def _split_path(source: str) -> tuple[str, Path | None]:
    """A prefix and a path; the path is None if the source names no file or folder of this machine."""
    if source.startswith(_LOCAL_OPEN_CLIP):
        return _LOCAL_OPEN_CLIP, Path(source.removeprefix(_LOCAL_OPEN_CLIP))
    if source.startswith(OPEN_CLIP_PREFIX):
        name, slash, weights = source.partition("/")
        return (f"{name}{slash}", Path(weights)) if Path(weights).suffix in _WEIGHTS else ("", None)
    is_remote = source.startswith(HUB_PREFIX) or find_released(source.partition("@")[0]) is not None
    return ("", None) if is_remote and not Path(source).exists() else ("", Path(source))
