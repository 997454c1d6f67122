"""`load`: resolve a model source to a model with its preprocessing and its tokenizer."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import torch

from prolip.checkpoint import Checkpoint, read_weights
from prolip.data.tokenizer import Tokenizer
from prolip.decisions.calibration import Calibration, load_calibration
from prolip.decisions.config import CALIBRATION_FILE
from prolip.distributed import find_device
from prolip.errors import UserError, check_choice
from prolip.models import ModelConfig, ProLIP
from prolip.models.config import Precision
from prolip.pretrained.adapted import adapted, check_frozen, find_adapter, find_frozen
from prolip.pretrained.build_open_clip import build_named, import_open_clip, of_open_clip, without_steps
from prolip.pretrained.carried import InferenceSettings, check_image_settings
from prolip.pretrained.model import Model, of_prolip
from prolip.pretrained.sources import (
    OPEN_CLIP_PREFIX,
    build_saved,
    load_network,
    read_beside,
    saved_architecture,
)
from prolip.pretrained.tokenizer_choice import check_tokenizer, choose_tokenizer, exported_settings, is_released

logger = logging.getLogger(__name__)


def load(
    source: str | Path,
    *,
    tokenizer: str | Path | None = None,
    device: str | torch.device = "auto",
    precision: Precision = "fp32",
    config: ModelConfig | None = None,
    cache_dir: str | Path | None = None,
    beside: Path | None = None,
    calibration: str | Path | None = None,
) -> Model:
    """Open a model with its image preprocessing and its tokenizer.

    Args:
        source: one of

            - the name of a released model (`prolip.list_models`),
            - "hf-hub:OWNER/NAME" or "hf-hub:OWNER/NAME@REVISION": a hub repository in the released layout,
            - the folder of a run (its newest usable checkpoint), of a checkpoint, or of an exported model,
            - the folder or repository of an adapted model (`prolip adapt`); it opens the frozen model, too,
            - a `.pt`, `.bin` or `.safetensors` file, with `config`,
            - "open_clip:NAME/TAG", "open_clip:NAME/FILE", "open_clip:hf-hub:..." or "open_clip:local-dir:...": a model
              that runs in open_clip; it has no variances.
        tokenizer: "clip", or the path of a tokenizer.json. None for the tokenizer that the checkpoint or the exported
            folder carries; else the tokenizer.json beside the weights; else the one that the configuration names on the
            hub; else CLIP's if the vocabulary has its size. If none is found, only images can be encoded. Not used for
            models of open_clip.
        device: where the model runs, such as "cuda:1"; "auto" for a GPU if there is one, else the CPU. A GPU that
            torch cannot use is an error.
        precision: precision of the towers: "fp32", or "bf16" or "fp16" by autocast.
        config: the architecture, if the source has none, such as `prolip.models.ARCHITECTURES["ViT-B-16"]`.
        cache_dir: folder for downloads; None for huggingface_hub's. `HF_HUB_OFFLINE=1` reads from the cache only.
        beside: folder to search for the tokenizer's file of an older run, whose checkpoints do not carry it.
        calibration: the file that `prolip calibrate` wrote, for guarantees; None for calibration.safetensors in the
            source's folder or repository, if there is one for this model.

    Raises:
        UserError: there is no such model, it is damaged, or it cannot be downloaded; the message says why.
    """
    source, target = str(source), find_device(device)
    check_choice("precision", precision, Precision)
    check_tokenizer(tokenizer)
    given = None if calibration is None else load_calibration(Path(calibration))  # before a download
    model = _load(source, tokenizer, target, precision, config, cache_dir, beside)
    if given is not None:
        return _with_calibration(model, given, str(calibration))
    return model if is_released(source) else _with_calibration_beside(model, cache_dir)


def _load(
    source: str,
    tokenizer: str | Path | None,
    target: torch.device,
    precision: Precision,
    config: ModelConfig | None,
    cache_dir: str | Path | None,
    beside: Path | None,
) -> Model:
    """The model of a source, without its calibration; see `load`."""
    if source.startswith(OPEN_CLIP_PREFIX):
        return _load_open_clip(source, target, precision, cache_dir)
    if not is_released(source) and (found_adapter := find_adapter(source, cache_dir)) is not None:
        adapter, frozen, folder = found_adapter
        tokenizer = tokenizer or frozen.tokenizer
        check_tokenizer(tokenizer)
        below = _load(find_frozen(frozen, folder), tokenizer, target, precision, None, cache_dir, beside)
        check_frozen(below, frozen, folder)
        return adapted(below, adapter, source)
    exported = exported_settings(source, cache_dir)
    network, checkpoint = _open_network(source, config, exported, cache_dir)
    found: Tokenizer | None = None
    reason = ""
    try:
        text = network.config.text
        found = Tokenizer(choose_tokenizer(source, tokenizer, text, checkpoint, exported, beside, cache_dir))
    except UserError as error:
        if tokenizer is not None:
            raise
        reason = str(error)
        logger.warning("%s: only images can be encoded: %s", source, reason)
    notes = exported if checkpoint is None else checkpoint.notes
    return of_prolip(
        network,
        found,
        source,
        target,
        keep_ratio=None if notes is None else notes.keep_ratio,
        precision=precision,
        no_tokenizer=reason,
    )


def _with_calibration_beside(model: Model, cache_dir: str | Path | None) -> Model:
    """The model with the calibration in its folder or repository, if there is one for it."""
    try:
        path = read_beside(model.name, CALIBRATION_FILE, cache_dir)
        return model if path is None else _with_calibration(model, load_calibration(path), path)
    except UserError as error:
        logger.warning("calibration not used: %s", error)
        return model


def _with_calibration(model: Model, calibration: Calibration, path: str | Path) -> Model:
    """The model with a calibration, which was read from `path`.

    Raises:
        UserError: it is for another model.
    """
    try:
        calibration.check_model(model.fingerprint())
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return dataclasses.replace(model, calibration=calibration)


def _load_open_clip(source: str, device: torch.device, precision: Precision, cache_dir: str | Path | None) -> Model:
    """Open a model that runs in open_clip.

    Raises:
        UserError: open_clip is not installed, knows no such model or weights, or cannot make its tokenizer.
    """
    name, network = build_named(source.removeprefix(OPEN_CLIP_PREFIX), cache_dir)
    try:
        with without_steps():
            tokenizer = import_open_clip().get_tokenizer(name, cache_dir=None if cache_dir is None else str(cache_dir))
    except ImportError as error:
        raise UserError(f"the tokenizer of {source} needs transformers: pip install transformers") from error
    except OSError as error:
        raise UserError(f"the tokenizer of {source} cannot be opened: {error}") from error
    return of_open_clip(network.eval(), tokenizer, source, device, precision=precision)


def _open_network(
    source: str, config: ModelConfig | None, exported: InferenceSettings | None, cache_dir: str | Path | None
) -> tuple[ProLIP, Checkpoint | None]:
    """The network of a source, and its checkpoint if the source is a run."""
    saved = read_weights(Path(source))
    if saved is None:
        model = load_network(source, config=config, cache_dir=cache_dir)
        if exported is not None:
            check_image_settings(exported.images, model.config, source)
        return model, None
    checkpoint, state = saved
    check_image_settings(checkpoint.notes.images, saved_architecture(checkpoint), source)
    return build_saved(checkpoint, state), checkpoint
