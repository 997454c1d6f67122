"""Which tokenizer a model was trained with: the one that it carries, that lies beside it, or that it names."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

from prolip.checkpoint import Checkpoint, open_saved
from prolip.data.config import Cleaning, TokenizerConfig
from prolip.errors import UserError, check_choice
from prolip.models.config import TextConfig
from prolip.models.hub import TOKENIZER_FILE
from prolip.models.released import find_released
from prolip.models.weights import INFERENCE_FILE, read_json
from prolip.pretrained.build_open_clip import import_open_clip
from prolip.pretrained.carried import InferenceSettings, carried_by, located, read_settings
from prolip.pretrained.download import DownloadError, hub_file
from prolip.pretrained.sources import HUB_PREFIX, OPEN_CLIP_PREFIX, hub_repository, read_beside

logger = logging.getLogger(__name__)

CLIP_TOKENS = 49408
"""Size of CLIP's vocabulary. A model with this many tokens and no tokenizer file is assumed to use CLIP's."""
OPEN_CLIP_CONFIG = "open_clip_config.json"
"""The file that describes a model in open_clip's layout."""
_TOKENIZER_SETTINGS = "tokenizer_config.json"
"""The file beside a tokenizer.json that names the padding token. `prolip.interop.transformers` also writes how captions
are cleaned and the padding id."""


def check_tokenizer(tokenizer: str | Path | None) -> None:
    """Check that a tokenizer that the user names exists, before its model is downloaded.

    Raises:
        UserError: it is neither "clip" nor a file.
    """
    if tokenizer is not None and tokenizer != "clip" and not Path(tokenizer).is_file():
        raise UserError(f"tokenizer is {tokenizer}: it must be `clip` or the file of a tokenizer.json")


def own_tokenizer(source: str, text: TextConfig) -> TokenizerConfig | None:
    """Return the tokenizer that a model was trained with, at its context length; None if its files do not say.

    Args:
        source: any source of `prolip.load`.
        text: the model's text tower.

    Raises:
        DownloadError: it is named, and cannot be downloaded.
    """
    try:
        if source.startswith(OPEN_CLIP_PREFIX):
            found = _of_open_clip(source.removeprefix(OPEN_CLIP_PREFIX), text)
        else:
            found = choose_tokenizer(source, None, text, open_saved(Path(source)), exported_settings(source, None))
    except DownloadError:
        raise
    except UserError:
        return None
    return None if found is None else dataclasses.replace(found, context_length=text.context_length)


def _of_open_clip(named: str, text: TextConfig) -> TokenizerConfig | None:
    """The tokenizer that open_clip's `get_tokenizer` makes of a model's configuration, if the loader has it."""
    folder = Path(named.removeprefix("local-dir:")) if named.startswith("local-dir:") else None
    config = _open_clip_config(named, folder).get("text_cfg", {})
    settings = config.get("tokenizer_kwargs", {})
    if settings.keys() - {"clean"} or config.get("tokenizer_mode"):
        return None
    name = config.get("hf_tokenizer_name")
    if name:
        # open_clip reads the files of a local folder, whatever name they had.
        file = _from_hub(name, None) if folder is None else folder / TOKENIZER_FILE
        return TokenizerConfig(kind="file", path=file.absolute(), clean=settings.get("clean", "whitespace"))
    return TokenizerConfig(kind="clip", clean=settings.get("clean")) if text.vocab_size == CLIP_TOKENS else None


def _open_clip_config(named: str, folder: Path | None) -> dict[str, Any]:
    if folder is not None:
        return dict(read_json(folder / OPEN_CLIP_CONFIG)["model_cfg"])
    if named.startswith(HUB_PREFIX):
        file = hub_file(named.removeprefix(HUB_PREFIX), OPEN_CLIP_CONFIG)
        return {} if file is None else dict(read_json(file)["model_cfg"])
    return import_open_clip().get_model_config(named.partition("/")[0]) or {}


def carried_tokenizer(
    source: str, checkpoint: Checkpoint | None, exported: InferenceSettings | None, cache_dir: str | Path | None
) -> TokenizerConfig | None:
    """The tokenizer that a checkpoint or an exported folder carries; None if it carries none.

    Raises:
        UserError: its file is missing or damaged.
    """
    if checkpoint is not None:
        return carried_by(checkpoint)
    if exported is None or exported.tokenizer is None:
        return None
    found = located(exported.tokenizer, Path())
    if found.path is None:
        return found
    file = read_beside(source, found.path.name, cache_dir)
    if file is None:
        raise UserError(f"{source} has no {found.path.name}, which its {INFERENCE_FILE} names")
    return dataclasses.replace(found, path=file.absolute())


def choose_tokenizer(
    source: str,
    tokenizer: str | Path | None,
    text: TextConfig,
    checkpoint: Checkpoint | None = None,
    exported: InferenceSettings | None = None,
    beside: Path | None = None,
    cache_dir: str | Path | None = None,
) -> TokenizerConfig:
    """Return the tokenizer of a model, which its checkpoint or exported folder may carry; see `load`.

    Raises:
        UserError: it is unknown, or cannot be downloaded.
    """
    if tokenizer is not None:
        return _named_tokenizer(None if tokenizer == "clip" else Path(tokenizer), text)
    if (carried := carried_tokenizer(source, checkpoint, exported, cache_dir)) is not None:
        return carried
    if checkpoint is not None and checkpoint.notes.tokenizer is not None:
        return find_tokenizer(TokenizerConfig.from_dict(checkpoint.notes.tokenizer), beside)
    released = is_released(source)
    # Released repositories hold no tokenizer. Not asking them also makes this work offline.
    if not released and (file := _tokenizer_beside(source, cache_dir)) is not None:
        return dataclasses.replace(_named_tokenizer(file, text), **_saved_for_transformers(file))
    if text.hf_tokenizer_name is not None:
        return _named_tokenizer(_from_hub(text.hf_tokenizer_name, cache_dir), text)
    if text.vocab_size == CLIP_TOKENS:
        if not released:
            logger.warning("%s names no tokenizer: using CLIP's, which has its %d tokens", source, CLIP_TOKENS)
        return _named_tokenizer(None, text)
    raise UserError(f"{source} does not say which tokenizer it was trained with: give `clip` or a tokenizer.json")


def _tokenizer_beside(source: str, cache_dir: str | Path | None) -> Path | None:
    """The tokenizer.json beside the weights, with its settings; None if there is none."""
    file = read_beside(source, TOKENIZER_FILE, cache_dir)
    if file is not None:
        read_beside(source, _TOKENIZER_SETTINGS, cache_dir)  # downloads it beside the other
    return file


def _saved_for_transformers(file: Path) -> dict[str, Any]:
    """Return `clean` and `pad_id` that a `ProLIPTokenizer` saved beside its tokenizer.json; nothing of another one.

    Raises:
        UserError: one has no possible value.
    """
    beside = file.with_name(_TOKENIZER_SETTINGS)
    saved = read_json(beside) if beside.is_file() else {}
    if not saved.keys() >= {"clean", "pad_id"}:
        return {}
    clean, pad_id = saved["clean"], saved["pad_id"]
    check_choice(f"{beside}: clean", clean, Cleaning)
    if type(pad_id) is not int:
        raise UserError(f"{beside}: pad_id is {pad_id!r}: it must be an integer")
    return {"clean": clean, "pad_id": pad_id}


def _from_hub(repository: str, cache_dir: str | Path | None) -> Path:
    """Download a tokenizer and its settings.

    Raises:
        UserError: the repository has no tokenizer.json, or it cannot be downloaded.
    """
    file = hub_file(repository, TOKENIZER_FILE, cache_dir)
    if file is None:
        raise UserError(f"{repository} has no {TOKENIZER_FILE}")
    hub_file(repository, _TOKENIZER_SETTINGS, cache_dir)
    return file


def _named_tokenizer(path: Path | None, text: TextConfig) -> TokenizerConfig:
    """CLIP's tokenizer, or a tokenizer.json with the caption cleaning of the model's configuration.

    A configuration that names a tokenizer of the hub but no cleaning means open_clip's default, `whitespace`.
    """
    if path is None:
        return TokenizerConfig(kind="clip", context_length=text.context_length)
    named = text.tokenizer_clean or (None if text.hf_tokenizer_name is None else "whitespace")
    clean = next((known for known in ("lower", "whitespace", "canonicalize") if known == named), None)
    return TokenizerConfig(kind="file", path=path, context_length=text.context_length, clean=clean)


def find_tokenizer(trained: TokenizerConfig, beside: Path | None) -> TokenizerConfig:
    """The tokenizer of a run; if its file is missing, the file of the same name in `beside`.

    Raises:
        UserError: both files are missing.
    """
    if trained.path is None or trained.path.is_file() or beside is None:
        return trained
    other = beside / trained.path.name
    if not other.is_file():
        raise UserError(f"the run's tokenizer {trained.path} is missing, and {beside} has no {trained.path.name}")
    logger.warning("the run's tokenizer %s is missing: using %s", trained.path, other)
    return dataclasses.replace(trained, path=other)


def is_released(source: str) -> bool:
    """Whether a source is a released repository: these hold weights and architecture, and nothing else."""
    repository = hub_repository(source)
    return repository is not None and find_released(repository.partition("@")[0]) is not None


def exported_settings(source: str, cache_dir: str | Path | None) -> InferenceSettings | None:
    """The settings of an exported model; None if the source is another one."""
    file = None if is_released(source) else read_beside(source, INFERENCE_FILE, cache_dir)
    return None if file is None else read_settings(file)
