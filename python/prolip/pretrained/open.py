"""Resolve a model source to a model and its tokenizer."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import torch

from prolip.checkpoint import Checkpoint, open_saved, read_weights
from prolip.data.config import TokenizerConfig
from prolip.data.tokenizer import Tokenizer
from prolip.errors import UserError
from prolip.models import ProLIP
from prolip.models.config import Precision, TextConfig
from prolip.models.hub import TOKENIZER_FILE
from prolip.models.official_json import from_official_json
from prolip.models.open_clip import build_named
from prolip.models.weights import INFERENCE_FILE, build
from prolip.pretrained.carried import carried_by, check_image_settings, located, read_settings
from prolip.pretrained.eval_model import EvalModel, of_open_clip, of_prolip
from prolip.pretrained.sources import OPEN_CLIP_PREFIX, load, read_beside

logger = logging.getLogger(__name__)

CLIP_TOKENS = 49408
"""Size of CLIP's vocabulary. A model with this many tokens and no tokenizer file is assumed to use CLIP's."""


def open_eval_model(
    source: str,
    tokenizer: str | None,
    device: torch.device,
    beside: Path | None = None,
    precision: Precision = "fp32",
) -> EvalModel:
    """Open a model for a suite.

    Args:
        source: a ProLIP model (see `open_model`), or a model that runs in open_clip: "open_clip:NAME/TAG",
            "open_clip:NAME/FILE", "open_clip:hf-hub:..." or "open_clip:local-dir:...".
        tokenizer: see `open_model`; not used for models of open_clip.
        device: where the model runs.
        beside: see `open_model`.
        precision: precision of the towers.

    Raises:
        UserError: there is no such model, or it cannot be evaluated.
    """
    if source.startswith(OPEN_CLIP_PREFIX):
        import open_clip

        name, network = build_named(source.removeprefix(OPEN_CLIP_PREFIX))
        baseline = of_open_clip(network.eval(), open_clip.get_tokenizer(name), source, device)
        return dataclasses.replace(baseline, precision=precision)
    model, found, checkpoint = _open(source, tokenizer, beside)
    file = None if checkpoint is not None else read_beside(source, INFERENCE_FILE)
    keep_ratio = None if file is None else read_settings(file).keep_ratio
    if checkpoint is not None:
        keep_ratio = checkpoint.notes.keep_ratio
    opened = of_prolip(model, found, source, device, keep_ratio=keep_ratio)
    return dataclasses.replace(opened, precision=precision)


def open_run(source: str) -> Checkpoint | None:
    """Open the checkpoint of a training run that `source` names; None if it names another kind of model.

    Raises:
        UserError: the checkpoint is damaged, or the run's folder has no usable one.
    """
    return open_saved(Path(source))


def open_model(source: str, tokenizer: str | None, beside: Path | None = None) -> tuple[ProLIP, Tokenizer]:
    """Open a ProLIP model, on the CPU and in evaluation mode, and its tokenizer.

    Args:
        source: see `prolip.pretrained.load`.
        tokenizer: "clip", or the path of a tokenizer.json. None for the tokenizer that the checkpoint or the exported
            folder carries, else the tokenizer.json beside the weights, else CLIP's if the vocabulary has its size.
        beside: folder to search for the tokenizer's file of an older run, whose checkpoints do not carry it.

    Raises:
        UserError: there is no usable checkpoint, or the tokenizer is unknown.
    """
    model, found, _ = _open(source, tokenizer, beside)
    return model, found


def _open(source: str, tokenizer: str | None, beside: Path | None) -> tuple[ProLIP, Tokenizer, Checkpoint | None]:
    """As `open_model`, and the checkpoint if the source is a run."""
    model, checkpoint = _open_network(source)
    text = model.config.text
    if tokenizer is not None:
        chosen = _named_tokenizer(None if tokenizer == "clip" else Path(tokenizer), text)
    elif (carried := _carried_tokenizer(source, checkpoint)) is not None:
        chosen = carried
    elif checkpoint is not None and checkpoint.notes.tokenizer is not None:
        chosen = find_tokenizer(TokenizerConfig.from_dict(checkpoint.notes.tokenizer), beside)
    elif (file := read_beside(source, TOKENIZER_FILE)) is not None:
        chosen = _named_tokenizer(file, text)
    elif text.vocab_size == CLIP_TOKENS:
        logger.warning("%s names no tokenizer: using CLIP's, which has its %d tokens", source, CLIP_TOKENS)
        chosen = _named_tokenizer(None, text)
    else:
        raise UserError(f"{source} does not say which tokenizer it was trained with: give `clip` or a tokenizer.json")
    found = Tokenizer(chosen)
    if found.vocab_size > text.vocab_size:
        raise UserError(f"the tokenizer has {found.vocab_size} tokens: the model has a table of {text.vocab_size}")
    return model, found, checkpoint


def _carried_tokenizer(source: str, checkpoint: Checkpoint | None) -> TokenizerConfig | None:
    """The tokenizer that a checkpoint or an exported folder carries; None if it carries none."""
    if checkpoint is not None:
        return carried_by(checkpoint)
    file = read_beside(source, INFERENCE_FILE)
    settings = None if file is None else read_settings(file).tokenizer
    if file is None or settings is None:
        return None
    found = located(settings, file.parent)
    if found.path is not None and read_beside(source, found.path.name) is None:
        raise UserError(f"{source} has no {found.path.name}, which its {INFERENCE_FILE} names")
    return found


def open_network(source: str) -> ProLIP:
    """Open a model without a tokenizer, to embed images; see `open_model`.

    Raises:
        UserError: there is no usable checkpoint.
    """
    return _open_network(source)[0]


def _open_network(source: str) -> tuple[ProLIP, Checkpoint | None]:
    saved = read_weights(Path(source))
    if saved is None:
        model = load(source)
        file = read_beside(source, INFERENCE_FILE)
        if file is not None:
            check_image_settings(read_settings(file).images, model.config, source)
        return model, None
    checkpoint, state = saved
    config = from_official_json(checkpoint.notes.model_config)
    check_image_settings(checkpoint.notes.images, config, source)
    return build(config, state), checkpoint


def _named_tokenizer(path: Path | None, text: TextConfig) -> TokenizerConfig:
    """CLIP's tokenizer, or a tokenizer.json with the caption cleaning of the model's configuration."""
    if path is None:
        return TokenizerConfig(kind="clip", context_length=text.context_length)
    clean = next((known for known in ("lower", "whitespace", "canonicalize") if known == text.tokenizer_clean), None)
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
