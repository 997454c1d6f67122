"""`prolip adapt`: from cached embeddings to a model with uncertainty, in one call."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

from prolip.adapt.config import AdaptOptions
from prolip.adapt.heads import fit_heads, start_heads
from prolip.adapt.laplace import fit_laplace
from prolip.adapt.pairs import BUFFER, PairRows, Pairs, open_pairs
from prolip.adapt.temperature import Logits, fit_logits
from prolip.embeddings.storage import Manifest
from prolip.errors import UserError
from prolip.files import check_own_folder
from prolip.models.adapter import ADAPTER_FILE, Adapter, Frozen, save_adapter
from prolip.models.config import AdapterConfig
from prolip.pretrained.model import weights_digest
from prolip.pretrained.open import load
from prolip.pretrained.sources import absolute_source

log = logging.getLogger(__name__)


class Origin(NamedTuple):
    """The frozen model, and the scale and bias of its similarity."""

    frozen: Frozen
    scale: float
    bias: float | None
    has_variances: bool
    """Whether it has variances of its own, with which its scale and bias were trained."""


def run_adapt(options: AdaptOptions) -> list[str]:
    """Adapt a frozen model, write it to a folder, and return the lines to print.

    Raises:
        UserError: the embeddings cannot be used, the frozen model is unknown, or the output folder holds other files.
        RuntimeError: the loss is not finite.
    """
    check_own_folder(options.out, ADAPTER_FILE)
    begun = time.monotonic()
    pairs = open_pairs(options.embeddings, options.masked)
    if pairs.count < 2:
        raise UserError(
            f"embeddings: {options.embeddings[0]} holds one pair: each is compared with others, so name more"
        )
    origin = find_origin(options, pairs.dim)
    torch.manual_seed(options.heads.seed)
    config = AdapterConfig(
        method=options.method,
        embed_dim=pairs.dim,
        has_bias=options.method == "heads" or origin.bias is not None,
        hidden=options.heads.hidden if options.method == "heads" else 0,
        means=options.heads.means if options.method == "heads" else "fixed",
    )
    adapter = Adapter(config)
    lines = _fit(adapter, pairs, origin, options)
    seconds = time.monotonic() - begun
    save_adapter(adapter, origin.frozen, options.out, _notes(options, pairs, seconds))
    return [
        f"{options.out}: {options.method} on {pairs.count:,} pairs of {pairs.dim} dimensions in {seconds:.0f} s",
        *lines,
        *similarity_lines(adapter, origin),
        f"frozen model: {origin.frozen.source}",
    ]


def similarity_lines(adapter: Adapter, origin: Origin) -> list[str]:
    """Return lines that say how scale and bias changed, with a warning if similarities hardly matter any more."""
    scale = float(adapter.logit_scale.detach().exp())
    bias = "no bias" if adapter.logit_bias is None else f"bias {float(adapter.logit_bias.detach()):.2f}"
    before = "none" if origin.bias is None else f"{origin.bias:.2f}"
    lines = [f"similarity: scale {scale:.2f}, {bias}; the frozen model's: {origin.scale:.2f}, {before}"]
    if scale < 1:
        lines.append(
            "warning: with a scale below 1 the model hardly uses similarities, and will classify badly: "
            "give more pairs, fewer steps (--heads.steps) or a smaller --loss.vib_weight"
        )
    return lines


def _fit(adapter: Adapter, pairs: Pairs, origin: Origin, options: AdaptOptions) -> list[str]:
    """Fit the adapter, and return the lines that say how it went."""
    if options.method == "laplace":
        scale, bias = origin.scale, origin.bias
        if origin.has_variances:
            scale, bias, _ = logits_of(pairs, options.heads.batch_size, with_bias=origin.bias is not None)
        found = fit_laplace(adapter, _one_pass(pairs, options.heads.batch_size), scale, bias)
        shown = " and ".join(f"{one.precision:.3g}" for one in found)
        return [f"prior precision {shown} (images and texts)", *_variances(adapter, pairs)]
    fitted = logits_of(pairs, options.heads.batch_size, with_bias=options.method == "heads" or origin.bias is not None)
    if options.method == "temperature":
        adapter.set_logits(fitted.scale, fitted.bias)
        return [f"loss {fitted.loss:.4f} per image"]
    start_heads(adapter, fitted)
    first, last = fit_heads(adapter, pairs, options.heads, options.loss)
    shown = ", ".join(f"{name} {float(value):.4g}" for name, value in last._asdict().items() if name != "total")
    return [
        f"loss {float(first.total):.4f} at the start, {float(last.total):.4f} at the end ({shown})",
        *_variances(adapter, pairs),
    ]


def logits_of(pairs: Pairs, batch_size: int, *, with_bias: bool) -> Logits:
    """The scale and bias that fit a sample of the pairs best, in batches of `batch_size`."""
    size = min(batch_size, pairs.count)
    batches = islice(pairs.batches(size, seed=0), max(1, min(BUFFER, pairs.count) // size))
    return fit_logits(list(batches), with_bias=with_bias)


def _one_pass(pairs: Pairs, batch_size: int) -> Iterator[PairRows]:
    """Yield all pairs once, in random batches; the last few, which do not fill a batch, are left out."""
    size = min(batch_size, pairs.count)
    return islice(pairs.batches(size, seed=0), pairs.count // size)


@torch.no_grad()
def _variances(adapter: Adapter, pairs: Pairs) -> list[str]:
    some = pairs.sample(4096)
    image, text = adapter.image(some.image).uncertainty, adapter.text(some.text).uncertainty
    lines = [
        f"uncertainty of images {image.mean():.4g} ± {image.std():.2g}, of texts {text.mean():.4g} ± {text.std():.2g} "
        "(mean ± standard deviation)"
    ]
    if max(image.mean(), text.mean()) > 1:
        lines.append(
            "warning: the uncertainty is larger than the embeddings, whose length is 1: these pairs are too few, or "
            "too easy to tell apart, to say what the model knows: give more pairs, or harder ones"
        )
    return lines


def _notes(options: AdaptOptions, pairs: Pairs, seconds: float) -> dict[str, Any]:
    """Return the entries of adapter.json about how the adapter was made."""
    notes: dict[str, Any] = {"pairs": pairs.count, "seconds": round(seconds, 1)}
    notes["embeddings"] = [str(path) for path in options.embeddings]
    notes["masked"] = [str(path) for path in options.masked]
    if options.method == "heads":
        notes |= {"heads": dataclasses.asdict(options.heads), "loss": dataclasses.asdict(options.loss)}
    return notes


# ---- The frozen model -----------------------------------------------------------------------------------------------


def find_origin(options: AdaptOptions, dim: int) -> Origin:
    """Find the model that made the embeddings in the folders' manifests.

    It is opened only if these lack its scale, or if `checkpoint` names another source, whose weights must be the same.

    Raises:
        UserError: it is unknown or its embeddings do not have `dim` dimensions, or the folders are of different models.
    """
    folders = [path for path in (*options.embeddings, *options.masked) if path.is_dir()]
    manifests = [Manifest.read(folder) for folder in folders]
    first = manifests[0] if manifests else None
    for folder, manifest in zip(folders, manifests, strict=True):
        if manifest.weights != manifests[0].weights:
            raise UserError(f"embeddings: {folder} and {folders[0]} come from different models")
    source = options.checkpoint or (None if first is None else first.checkpoint)
    if source is None:
        raise UserError("checkpoint: name the model that made these embeddings, such as open_clip:ViT-B-32/openai")
    tokenizer = None if first is None else first.tokenizer
    if tokenizer is not None and tokenizer != "clip":
        tokenizer = str(Path(tokenizer).absolute())
    named = absolute_source(source)
    if first is not None and first.logit_scale is not None and source == first.checkpoint:
        frozen = Frozen(named, first.weights, tokenizer)
        return Origin(frozen, first.logit_scale, first.logit_bias, first.has_variances)
    log.info("opening %s for the scale and bias of its similarity", source)
    model = load(source, tokenizer=tokenizer, device="cpu")
    digest = weights_digest(model.network)
    if first is not None and digest != first.weights:
        raise UserError(f"checkpoint: {source} is not the model that made {folders[0]}")
    own = model.encode_images([Image.new("RGB", (8, 8))]).mean.shape[1]
    if own != dim:
        raise UserError(f"checkpoint: embeddings of {source} have {own} dimensions, and the given ones have {dim}")
    frozen = Frozen(named, digest, tokenizer)
    return Origin(frozen, model.logit_scale, model.logit_bias, model.has_variances)
