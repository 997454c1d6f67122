"""What a model carries besides its weights, so that a copied folder is all that inference needs.

The notes of a checkpoint and the inference.json of an exported folder hold the same settings. The tokenizer's file lies
beside them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from prolip.checkpoint import Checkpoint, Preprocessing
from prolip.data.config import TokenizerConfig
from prolip.data.tokenizer import Tokenizer
from prolip.errors import UserError
from prolip.files import write_atomic
from prolip.models.config import ModelConfig
from prolip.models.hub import TOKENIZER_FILE
from prolip.models.weights import CONFIG_FILE, INFERENCE_FILE, MODEL_FILE, WeightsError, checksum, read_json
from prolip.normalization import OPENAI_MEAN, OPENAI_STD


class InferenceSettings(NamedTuple):
    """The settings in an exported folder, besides the architecture."""

    tokenizer: dict[str, Any] | None
    """The tokenizer's settings (`prolip.checkpoint.Preprocessing`); None if it is unknown."""
    images: dict[str, Any]
    """How images are prepared (`image_settings`)."""
    keep_ratio: float | None
    """Share of patches that training kept of masked images; None if unknown."""


def write_settings(folder: Path, carried: Preprocessing, keep_ratio: float | None) -> None:
    """Write the settings of an exported folder, when all its other files are there."""
    settings = InferenceSettings(carried.tokenizer, carried.images or {}, keep_ratio)
    names = (CONFIG_FILE, MODEL_FILE, *carried.files)
    content = settings._asdict() | {"files": {name: checksum(folder / name) for name in names}}
    write_atomic(folder / INFERENCE_FILE, json.dumps(content, indent=2))


def read_settings(path: Path) -> InferenceSettings:
    """Read the settings of an exported folder.

    Raises:
        UserError: the file does not hold such settings.
    """
    try:
        content = read_json(path)
        settings = InferenceSettings(**{name: content[name] for name in InferenceSettings._fields})
        if settings.tokenizer is not None:
            located(settings.tokenizer, path.parent)
    except WeightsError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} does not hold the settings of a model: {error!r}") from error
    return settings


def carry(tokenizer: TokenizerConfig, model: ModelConfig) -> Preprocessing:
    """Return what is stored with a model: its tokenizer, with the file, and how images are prepared.

    Raises:
        UserError: the file is not a tokenizer.
        OSError: it cannot be read.
    """
    images = image_settings(model)
    if tokenizer.path is None:
        return Preprocessing(tokenizer=tokenizer.to_dict(), images=images)
    name, pad_id = TOKENIZER_FILE, tokenizer.pad_id
    if tokenizer.kind == "clip":
        name = "merges.txt.gz" if tokenizer.path.suffix == ".gz" else "merges.txt"
    elif pad_id is None:  # a tokenizer_config.json beside the file may name it, and is not copied
        pad_id = Tokenizer(tokenizer).pad_id
    settings = dataclasses.replace(tokenizer, path=Path(name), pad_id=pad_id).to_dict()
    return Preprocessing(tokenizer=settings, images=images, files={name: tokenizer.path.read_bytes()})


def check_same_tokenizer(checkpoint: Checkpoint, carried: Preprocessing, path: Path | None) -> None:
    """Check that a run resumes with the tokenizer's file that it began with. Another `path` is fine.

    Raises:
        UserError: the file has other content, so that its ids mean other tokens.
    """
    for name, content in carried.files.items():
        if name in checkpoint.manifest.files and (checkpoint.path / name).read_bytes() != content:
            raise UserError(
                f"data.tokenizer.path is {path}: it differs from the tokenizer that the run began with, "
                f"{checkpoint.path / name}"
            )


def carried_by(checkpoint: Checkpoint) -> TokenizerConfig | None:
    """The tokenizer in a checkpoint's folder; None if it was saved without its file.

    Raises:
        UserError: the settings are not those of a tokenizer, or the file is damaged.
    """
    settings = checkpoint.notes.tokenizer
    try:
        if settings is None or settings["path"] is None or settings["path"] not in checkpoint.manifest.files:
            return None
        config = located(settings, checkpoint.path)
    except (KeyError, TypeError) as error:
        raise UserError(f"{checkpoint.path}: run.json does not hold the settings of a tokenizer: {error!r}") from error
    return config


def located(settings: Mapping[str, Any], folder: Path) -> TokenizerConfig:
    """The configuration of a carried tokenizer whose file is in `folder`."""
    config = TokenizerConfig.from_dict(settings)
    return config if config.path is None else dataclasses.replace(config, path=folder.resolve() / config.path.name)


def image_settings(config: ModelConfig) -> dict[str, Any]:
    """How images are prepared for a model, as plain values."""
    size = config.vision.image_size
    return {
        "size": [size, size] if isinstance(size, int) else list(size),
        "resize_mode": "shortest",
        "interpolation": "bicubic",
        "mean": list(OPENAI_MEAN),
        "std": list(OPENAI_STD),
    }


def check_image_settings(found: Mapping[str, Any] | None, config: ModelConfig, source: str) -> None:
    """Check that images are prepared as when the model was saved; a model without settings is not checked.

    Raises:
        UserError: they are not.
    """
    expected = image_settings(config)
    if found is not None and found != expected:
        differing = [key for key in expected if found.get(key) != expected[key]] or [*(set(found) - set(expected))]
        key = differing[0]
        raise UserError(
            f"{source}: the model was trained on images with {key} {found.get(key)!r}, and this version of prolip "
            f"prepares them with {expected.get(key)!r}"
        )
