"""`load`: open a model from any source."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prolip.calibration.calibration import Calibration, load_calibration
from prolip.calibration.config import CALIBRATION_FILE, SEARCH_FILE
from prolip.calibration.search import SearchCalibration, is_search_calibration, load_search_calibration
from prolip.data.tokenizer import Tokenizer
from prolip.distributed import find_device
from prolip.errors import UserError, check_at_least, check_choice, fields_within
from prolip.gaussian import Gaussian
from prolip.images.preprocess import Preprocess
from prolip.inference.aligned import open_aligned
from prolip.inference.encoder import Encoder
from prolip.inference.model import Model, of_prolip, weights_digest
from prolip.inference.tokenizer import check_tokenizer, find_tokenizer
from prolip.models import ModelConfig
from prolip.models.adapter import AdaptedNetwork, Adapter
from prolip.models.config import Precision
from prolip.pretrained.build_with_open_clip import build_named, import_open_clip, root_messages
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
    calibration: str | Path | None = None,
    image_seq_len: int | None = None,
) -> Model:
    """Open a model with its image preprocessing and tokenizer.

    Args:
        source: one of

            - the name of a released model (`prolip.list_models`),
            - "hf-hub:OWNER/NAME" or "hf-hub:OWNER/NAME@REVISION": a hub repository in the released layout, or SigLIP 2
              with native aspect in the layout of transformers, which has no variances,
            - the folder of a run (its newest usable checkpoint), of a checkpoint, or of an exported or adapted model,
            - a `.pt`, `.bin` or `.safetensors` file, with `config`,
            - "open_clip:NAME/TAG", "open_clip:NAME/FILE", "open_clip:hf-hub:..." or "open_clip:local-dir:...": a model
              that runs in open_clip, without variances.
        tokenizer: "clip", or the path of a tokenizer.json. None for the one that the checkpoint or the exported folder
            carries; else the tokenizer.json beside the weights; else the one that the configuration names on the hub;
            else CLIP's if the vocabulary has its size. Without any, only images can be encoded. Not used for models of
            open_clip.
        device: such as "cuda:1"; "auto" for a GPU if there is one, else the CPU. A GPU that torch cannot use is an
            error.
        precision: of the towers: "fp32", or "bf16" or "fp16" by autocast.
        config: the architecture, if the source has none, such as `prolip.models.ARCHITECTURES["ViT-B-16"]`.
        cache_dir: folder for downloads; None for huggingface_hub's. `HF_HUB_OFFLINE=1` reads from the cache only.
        calibration: the file that `prolip calibrate` wrote, for guarantees; None for calibration.safetensors and
            search.safetensors in the source's folder or repository, if for this model.
        image_seq_len: maximum patches of an image, for a model of images at their native aspect ratio; None for the
            model's own.

    Raises:
        UserError: there is no such model, it is damaged, or it cannot be downloaded; the message says why.
    """
    target = find_device(device)
    check_choice("precision", precision, Precision)
    check_tokenizer(tokenizer)
    given = None if calibration is None else read_calibration(Path(calibration))  # before a download
    found = resolve(source, cache_dir)
    model = _open(found, tokenizer, target, precision, config)
    if image_seq_len is not None:
        check_at_least(1, image_seq_len=image_seq_len)
        if not model.preprocess.is_native:
            raise UserError("image_seq_len", f"{model.name} takes square images only", image_seq_len)
        shorter = dataclasses.replace(model.preprocess, image_seq_len=image_seq_len)
        model = dataclasses.replace(model, encoder=dataclasses.replace(model.encoder, preprocess=shorter))
    return calibrated(model, found, calibration, given)


def calibrated(
    model: Model, found: Source, calibration: str | Path | None, given: Calibration | SearchCalibration | None
) -> Model:
    """The model with the calibrations of its source, and the given one, read from the file `calibration`."""
    for name in () if found.is_released else (CALIBRATION_FILE, SEARCH_FILE):
        if (path := found.find(name)) is not None:
            stored = read_calibration(path)
            if isinstance(model.encoder.tokenizer, UserError) or stored.subject.fingerprint != model.fingerprint():
                logger.warning("calibration not used: %s is for other weights or settings", path)
            else:
                model = _with_calibration(model, stored)
    if given is not None:
        with fields_within(f"{calibration}: "):
            given.subject.check_model(model.fingerprint())
        model = _with_calibration(model, given)
    return model


def read_calibration(path: Path) -> Calibration | SearchCalibration:
    """The calibration of either kind in a file."""
    return load_search_calibration(path) if is_search_calibration(path) else load_calibration(path)


def _with_calibration(model: Model, calibration: Calibration | SearchCalibration) -> Model:
    if isinstance(calibration, Calibration):
        return dataclasses.replace(model, calibration=calibration)
    return dataclasses.replace(model, search_calibration=calibration)


def _open(
    source: Source,
    tokenizer: str | Path | None,
    device: torch.device,
    precision: Precision,
    config: ModelConfig | None = None,
) -> Model:
    """The model of a source, without its calibration."""
    if source.open_clip is not None:
        name, network = build_named(source.open_clip, source.cache_dir)
        cache_dir = None if source.cache_dir is None else str(source.cache_dir)
        try:
            with root_messages(logging.WARNING):
                theirs = import_open_clip().get_tokenizer(name, cache_dir=cache_dir)
        except (ImportError, OSError) as error:
            raise UserError(source.name, f"its tokenizer cannot be opened: {error}") from error
        return of_open_clip(network.eval(), theirs, source.name, device, precision=precision)
    if source.adapter is not None:
        adapter, frozen, folder = source.adapter
        tokenizer = tokenizer or frozen.tokenizer
        check_tokenizer(tokenizer)
        below = _open(resolve(find_frozen(frozen, folder), source.cache_dir), tokenizer, device, precision)
        if frozen.weights is not None and weights_digest(below.network) != frozen.weights:
            raise UserError(folder, f"the weights of {below.name} have changed since it was adapted; adapt it again")
        return adapted(below, adapter, source.name)
    if source.aligned is not None:
        return open_aligned(*source.aligned, source.name, device, precision)
    settings, prolip = source.settings, source.network(config, uncertainty=False)
    if settings is not None:
        Preprocess.of_config(prolip.config).check_settings(settings.images, source.name)
    chosen = find_tokenizer(source, prolip.config.text, tokenizer)
    if isinstance(chosen, UserError):
        logger.warning("%s: only images can be encoded: %s", source.name, chosen)
    return of_prolip(
        prolip,
        chosen if isinstance(chosen, UserError) else Tokenizer(chosen),
        source.name,
        device,
        keep_ratio=None if settings is None else settings.keep_ratio,
        precision=precision,
    )


def adapted(frozen: Model, adapter: Adapter, name: str) -> Model:
    """The frozen model with the adapter's Gaussians, scale and bias, on the frozen model's device.

    Args:
        frozen: any model; variances are not used.
        adapter: what `prolip adapt` learned on embeddings of that model.
        name: in results.
    """
    encoder = dataclasses.replace(
        frozen.encoder,
        network=AdaptedNetwork(frozen.network, adapter.to(frozen.device)).eval(),
        encode_pixels=partial(_adapt, frozen.encode_pixels, adapter.image),
        encode_tokens=partial(_adapt, frozen.encode_tokens, adapter.text),
    )
    return Model(name=name, encoder=encoder, has_variances=True, keep_ratio=frozen.keep_ratio)


def _adapt(encode: Callable[[Tensor], Gaussian], head: nn.Module, inputs: Tensor) -> Gaussian:
    features = encode(inputs).mean.float()
    with torch.autocast(features.device.type, enabled=False):
        found: Gaussian = head(features)
    return found


def of_open_clip(
    model: nn.Module,
    tokenizer: Callable[[list[str]], Tensor],
    name: str,
    device: torch.device,
    *,
    precision: Precision = "fp32",
) -> Model:
    """Wrap a model of open_clip, which has no variances, and move it to `device`.

    Args:
        model: from `open_clip.create_model`.
        tokenizer: from `open_clip.get_tokenizer`.
        name: in results.
        device: where it runs.
        precision: of the towers.
    """
    network: Any = model.to(device)
    encoder = Encoder(
        network=network,
        device=device,
        encode_pixels=partial(_encode, network.encode_image),
        encode_tokens=partial(_encode, network.encode_text),
        preprocess=Preprocess.of(network),
        tokenizer=tokenizer,
        precision=precision,
    )
    return Model(name=name, encoder=encoder, has_variances=False)


def _encode(tower: Callable[[Tensor], Tensor], inputs: Tensor) -> Gaussian:
    return Gaussian.point(F.normalize(tower(inputs).float(), dim=-1))
