"""`load`: resolve a model source to a model with its preprocessing and its tokenizer."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from prolip.calibration.calibration import Calibration, load_calibration
from prolip.calibration.config import CALIBRATION_FILE, SEARCH_FILE
from prolip.calibration.search import SearchCalibration, load_search_calibration
from prolip.data.tokenizer import Tokenizer
from prolip.distributed import find_device
from prolip.errors import UserError, check_at_least, check_choice
from prolip.gaussian import Gaussian
from prolip.inference.model import Model, of_prolip, weights_digest
from prolip.inference.preprocess import Preprocess, check_image_settings
from prolip.inference.tokenizer import check_tokenizer, choose_tokenizer
from prolip.inference.wrap_open_clip import load_open_clip
from prolip.models import ModelConfig
from prolip.models.adapter import AdaptedNetwork, Adapter
from prolip.models.config import Precision
from prolip.pretrained.sources import Source, find_frozen, resolve

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
    image_seq_len: int | None = None,
) -> Model:
    """Open a model with its image preprocessing and its tokenizer.

    Args:
        source: one of

            - the name of a released model (`prolip.list_models`),
            - "hf-hub:OWNER/NAME" or "hf-hub:OWNER/NAME@REVISION": a hub repository in the released layout, or SigLIP 2
              with native aspect in the layout of transformers; this one has no variances,
            - the folder of a run (its newest usable checkpoint), of a checkpoint, or of an exported or adapted model,
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
        calibration: the file that `prolip calibrate` wrote, for guarantees; None for calibration.safetensors and
            search.safetensors in the source's folder or repository, if they are there and for this model.
        image_seq_len: maximum number of patches of an image, for a model of images at their native aspect ratio; None
            for the model's own.

    Raises:
        UserError: there is no such model, it is damaged, or it cannot be downloaded; the message says why.
    """
    target = find_device(device)
    check_choice("precision", precision, Precision)
    check_tokenizer(tokenizer)
    given = None if calibration is None else _read_calibration(Path(calibration))  # before a download
    found = resolve(source, cache_dir)
    model = _open(found, tokenizer, target, precision, config, beside)
    if image_seq_len is not None:
        check_at_least(1, image_seq_len=image_seq_len)
        if not model.preprocess.pixels.is_native:
            raise UserError("image_seq_len", f"{model.name} takes square images only", image_seq_len)
        shorter = Preprocess(dataclasses.replace(model.preprocess.pixels, image_seq_len=image_seq_len))
        model = dataclasses.replace(model, preprocess=shorter)
    for kind, name in ((Calibration, CALIBRATION_FILE), (SearchCalibration, SEARCH_FILE)):
        try:
            path = None if found.is_released or isinstance(given, kind) else found.find(name)
            model = model if path is None else _with_calibration(model, _read_calibration(path), path)
        except UserError as error:
            logger.warning("calibration not used: %s", error)
    return model if given is None else _with_calibration(model, given, Path(str(calibration)))


def _read_calibration(path: Path) -> Calibration | SearchCalibration:
    try:
        return load_search_calibration(path)
    except UserError:
        return load_calibration(path)


def _with_calibration(model: Model, calibration: Calibration | SearchCalibration, path: Path) -> Model:
    try:
        calibration.subject.check_model(model.fingerprint())
    except UserError as error:
        raise UserError(path, error) from error
    if isinstance(calibration, Calibration):
        return dataclasses.replace(model, calibration=calibration)
    return dataclasses.replace(model, search_calibration=calibration)


def _open(
    source: Source,
    tokenizer: str | Path | None,
    device: torch.device,
    precision: Precision,
    config: ModelConfig | None = None,
    beside: Path | None = None,
) -> Model:
    """The model of a source, without its calibration; see `load`."""
    if source.open_clip is not None:
        return load_open_clip(source.name, source.open_clip, device, precision, source.cache_dir)
    if source.adapter is not None:
        adapter, frozen, folder = source.adapter
        tokenizer = tokenizer or frozen.tokenizer
        check_tokenizer(tokenizer)
        below = _open(
            resolve(find_frozen(frozen, folder), source.cache_dir), tokenizer, device, precision, None, beside
        )
        if frozen.weights is not None and weights_digest(below.network) != frozen.weights:
            raise UserError(folder, f"the weights of {below.name} have changed since it was adapted; adapt it again")
        return adapted(below, adapter, source.name)
    settings = source.settings
    network = source.network(config, uncertainty=False)
    if settings is not None:
        check_image_settings(settings.images, network.config, source.name)
    found: Tokenizer | None = None
    missing: UserError | None = None
    try:
        found = Tokenizer(choose_tokenizer(source, network.config.text, tokenizer, beside))
    except UserError as error:
        if tokenizer is not None:
            raise
        missing = error
        logger.warning("%s: only images can be encoded: %s", source.name, error)
    keep_ratio = None if settings is None else settings.keep_ratio
    return of_prolip(
        network, found, source.name, device, keep_ratio=keep_ratio, precision=precision, no_tokenizer=missing
    )


def adapted(frozen: Model, adapter: Adapter, name: str) -> Model:
    """The frozen model with the adapter's Gaussians, scale and bias, on the frozen model's device.

    Args:
        frozen: any model; its variances, if any, are not used.
        adapter: what `prolip adapt` learned on embeddings of that model.
        name: name in results.
    """
    return dataclasses.replace(
        frozen,
        name=name,
        network=AdaptedNetwork(frozen.network, adapter.to(frozen.device)).eval(),
        encode_pixels=partial(_encode, frozen.encode_pixels, adapter.image),
        encode_tokens=partial(_encode, frozen.encode_tokens, adapter.text),
        has_variances=True,
        calibration=None,  # the frozen model's does not hold for this one
        search_calibration=None,
    )


def _encode(encode: Callable[[Tensor], Gaussian], head: nn.Module, inputs: Tensor) -> Gaussian:
    features = encode(inputs).mean.float()
    with torch.autocast(features.device.type, enabled=False):
        found: Gaussian = head(features)
    return found
