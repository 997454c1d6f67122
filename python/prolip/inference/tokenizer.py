"""Which tokenizer a model was trained with: stored with it, beside it, or named by it."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from prolip.checkpoint import Checkpoint, Preprocessing
from prolip.data.config import Cleaning, TokenizerConfig
from prolip.data.tokenizer import Tokenizer
from prolip.errors import UserError, check_choice
from prolip.images.preprocess import Preprocess
from prolip.models.config import ModelConfig, TextConfig
from prolip.models.hub import TOKENIZER_FILE
from prolip.models.weights import INFERENCE_FILE, read_json
from prolip.pretrained.build_with_open_clip import import_open_clip
from prolip.pretrained.download import DownloadError, ask_hub, hub_file
from prolip.pretrained.sources import HUB_PREFIX, Source, resolve

logger = logging.getLogger(__name__)

Found = TypeVar("Found")

CLIP_TOKENS = 49408
"""Size of CLIP's vocabulary. A model of this size without a tokenizer file is assumed to use it."""
OPEN_CLIP_CONFIG = "open_clip_config.json"
"""The file that describes a model in open_clip's layout."""
_TOKENIZER_SETTINGS = "tokenizer_config.json"
"""Beside a tokenizer.json; names the padding token. `prolip.interop.transformers` adds the cleaning of captions and the
padding id."""


def check_tokenizer(tokenizer: str | Path | None) -> None:
    """Check that the user's tokenizer exists, before its model is downloaded."""
    if tokenizer is not None and tokenizer != "clip" and not Path(tokenizer).is_file():
        raise UserError("tokenizer", "must be `clip` or the file of a tokenizer.json", tokenizer)


def warn_of_unknown_words(tokenizer: object, texts: Sequence[str]) -> None:
    """Log the words of labels or queries that a model of few captions can hardly know."""
    if isinstance(tokenizer, Tokenizer) and (unknown := tokenizer.unknown_words(texts)):
        logger.warning("rare or absent in the captions that the tokenizer was trained on: %s", ", ".join(unknown))


def find_tokenizer(source: Source, text: TextConfig, chosen: str | Path | None = None) -> TokenizerConfig | UserError:
    """The tokenizer of a model, or why it is unknown; `chosen` as in `prolip.load`."""
    if chosen is not None:
        return _file_or_clip(None if chosen == "clip" else Path(chosen), text)
    if (stored := stored_tokenizer(source)) is not None:
        return stored
    # Released repositories hold none; not asking them also works offline.
    if not source.is_released and (file := source.find(TOKENIZER_FILE)) is not None:
        source.find(_TOKENIZER_SETTINGS)  # downloads it beside the other
        return dataclasses.replace(_file_or_clip(file, text), **_saved_for_transformers(file))
    if text.hf_tokenizer_name is not None:
        downloaded = _from_hub(text.hf_tokenizer_name, source.cache_dir)
        return downloaded if isinstance(downloaded, UserError) else _file_or_clip(downloaded, text)
    if text.vocab_size == CLIP_TOKENS:
        if not source.is_released:
            logger.warning("%s names no tokenizer: using CLIP's, which has its %d tokens", source.name, CLIP_TOKENS)
        return _file_or_clip(None, text)
    return UserError(
        "tokenizer", f"{source.name} does not say which tokenizer it was trained with; give `clip` or a file"
    )


def choose_tokenizer(source: Source, text: TextConfig, chosen: str | Path | None = None) -> TokenizerConfig:
    """As `find_tokenizer`; a UserError if it is unknown."""
    return _known(find_tokenizer(source, text, chosen))


def _known(found: Found | UserError) -> Found:
    if isinstance(found, UserError):
        raise found
    return found


def stored_tokenizer(source: Source) -> TokenizerConfig | None:
    """The tokenizer that is stored with a model's weights; None if there is none."""
    stored = None if source.settings is None else source.settings.tokenizer
    if stored is None or stored.path is None:
        return stored
    name = stored.path.name
    file = source.find(name) if source.checkpoint is None else source.checkpoint.path.resolve() / name
    if file is None:
        raise UserError(source.name, f"{name} is missing, which its {INFERENCE_FILE} names")
    return dataclasses.replace(stored, path=file.absolute())


def own_tokenizer(source: str, text: TextConfig) -> TokenizerConfig | None:
    """The tokenizer that any source of `prolip.load` was trained with, at its context length; None if it does not say.

    Raises:
        UserError: the source is no model.
        DownloadError: the named tokenizer cannot be downloaded.
    """
    model = resolve(source)
    found = find_tokenizer(model, text) if model.open_clip is None else _of_open_clip(model.open_clip, text)
    if isinstance(found, DownloadError):
        raise found
    if found is None or isinstance(found, UserError):
        return None
    return dataclasses.replace(found, context_length=text.context_length)


def _of_open_clip(named: str, text: TextConfig) -> TokenizerConfig | None:
    """As open_clip's `get_tokenizer` makes it of a model's configuration, if the loader has it."""
    folder = Path(named.removeprefix("local-dir:")) if named.startswith("local-dir:") else None
    config = open_clip_config(named).get("text_cfg", {})
    settings = config.get("tokenizer_kwargs", {})
    if settings.keys() - {"clean"} or config.get("tokenizer_mode"):
        return None
    name = config.get("hf_tokenizer_name")
    if name:
        # open_clip reads the files of a local folder, whatever name they had.
        file = _known(_from_hub(name, None)) if folder is None else folder / TOKENIZER_FILE
        return TokenizerConfig(kind="file", path=file.absolute(), clean=settings.get("clean", "whitespace"))
    return TokenizerConfig(kind="clip", clean=settings.get("clean")) if text.vocab_size == CLIP_TOKENS else None


def open_clip_config(named: str) -> dict[str, Any]:
    """open_clip's configuration of a model (NAME/TAG, hf-hub:... or local-dir:...); empty if it has none."""
    if named.startswith("local-dir:"):
        file: Path | None = Path(named.removeprefix("local-dir:")) / OPEN_CLIP_CONFIG
    elif named.startswith(HUB_PREFIX):
        file = hub_file(named.removeprefix(HUB_PREFIX), OPEN_CLIP_CONFIG)
    else:
        return import_open_clip().get_model_config(named.partition("/")[0]) or {}
    return {} if file is None else dict(read_json(file).get("model_cfg", {}))


def _saved_for_transformers(file: Path) -> dict[str, Any]:
    """`clean` and `pad_id` as a `ProLIPTokenizer` saved them beside its tokenizer.json; nothing of another one."""
    beside = file.with_name(_TOKENIZER_SETTINGS)
    saved = read_json(beside) if beside.is_file() else {}
    if not saved.keys() >= {"clean", "pad_id"}:
        return {}
    check_choice(f"{beside}: clean", saved["clean"], Cleaning)
    if type(saved["pad_id"]) is not int:
        raise UserError(beside, "pad_id: must be an integer", f"{saved['pad_id']!r}")
    return {"clean": saved["clean"], "pad_id": saved["pad_id"]}


def _from_hub(repository: str, cache_dir: str | Path | None) -> Path | UserError:
    file = ask_hub(repository, TOKENIZER_FILE, cache_dir)
    if isinstance(file, Path):
        ask_hub(repository, _TOKENIZER_SETTINGS, cache_dir)
    return UserError(repository, f"{TOKENIZER_FILE} is missing") if file is None else file


def _file_or_clip(path: Path | None, text: TextConfig) -> TokenizerConfig:
    """CLIP's tokenizer, or a tokenizer.json with the caption cleaning of the model's configuration.

    A configuration that names a tokenizer of the hub but no cleaning means open_clip's default, `whitespace`.
    """
    if path is None:
        return TokenizerConfig(kind="clip", context_length=text.context_length)
    named = text.tokenizer_clean or (None if text.hf_tokenizer_name is None else "whitespace")
    clean = next((known for known in ("lower", "whitespace", "canonicalize") if known == named), None)
    return TokenizerConfig(kind="file", path=path, context_length=text.context_length, clean=clean)


# ---- Storing a tokenizer with a model -------------------------------------------------------------------------------


def inference_files(tokenizer: TokenizerConfig, model: ModelConfig) -> Preprocessing:
    """What is stored with a model for inference: its tokenizer, with the file, and how images are prepared."""
    images = Preprocess.of_config(model).settings()
    if tokenizer.path is None:
        return Preprocessing(tokenizer=tokenizer.to_dict(), images=images)
    name, pad_id = TOKENIZER_FILE, tokenizer.pad_id
    if tokenizer.kind == "clip":
        name = "merges.txt.gz" if tokenizer.path.suffix == ".gz" else "merges.txt"
    elif pad_id is None:  # a tokenizer_config.json beside the file may name it, and is not copied
        pad_id = Tokenizer(tokenizer).pad_id
    settings = dataclasses.replace(tokenizer, path=Path(name), pad_id=pad_id).to_dict()
    return Preprocessing(tokenizer=settings, images=images, files={name: tokenizer.path.read_bytes()})


def check_same_tokenizer(checkpoint: Checkpoint, now: Preprocessing, path: Path | None) -> None:
    """Refuse to resume with a tokenizer of other content, whose ids mean other tokens. Another `path` is fine."""
    for name, content in now.files.items():
        if name in checkpoint.manifest.files and (checkpoint.path / name).read_bytes() != content:
            raise UserError(
                "data.tokenizer.path",
                f"the file must equal the one that the run began with, {checkpoint.path / name}",
                path,
            )
