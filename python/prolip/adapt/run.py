"""`prolip adapt`: from cached embeddings to a model with uncertainty, in one call."""

from __future__ import annotations

import dataclasses
import logging
import time
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from prolip.adapt.config import AdaptOptions
from prolip.adapt.counted import counted_head, read_bank
from prolip.adapt.heads import fit_heads, start_heads
from prolip.adapt.logits import fit_logits
from prolip.adapt.pairs import BUFFER, Pairs, open_pairs
from prolip.distributed import find_device
from prolip.embeddings.config import Kind
from prolip.embeddings.storage import Manifest
from prolip.errors import UserError, check
from prolip.inference.load_model import load
from prolip.inference.model import weights_digest
from prolip.models.adapter import ADAPTER_FILE, Adapter, Frozen, save_adapter
from prolip.models.config import AdapterConfig
from prolip.models.counted import CountedHead
from prolip.pretrained.sources import absolute_source
from prolip.store.atomic_writes import check_own_folder
from prolip.store.folder import Folder

log = logging.getLogger(__name__)

_DIRECTIONS: tuple[tuple[Kind, Kind], ...] = (("image", "text"), ("text", "image"))
"""Whose variances are counted, and with whose embeddings."""


class Origin(NamedTuple):
    """The frozen model, and the scale and bias of its similarity."""

    frozen: Frozen
    scale: float
    bias: float | None


def run_adapt(options: AdaptOptions) -> list[str]:
    """Adapt a frozen model, write it to a folder, and return the lines to print.

    Raises:
        UserError: the embeddings cannot be used, the frozen model is unknown, or the output folder holds other files.
        RuntimeError: the loss is not finite.
    """
    check_own_folder(options.out, ADAPTER_FILE)
    begun = time.monotonic()
    adapter, origin, notes, lines = (_learn if options.method == "heads" else _count)(options)
    seconds = time.monotonic() - begun
    notes |= {"embeddings": options.embeddings, "seconds": round(seconds, 1)}
    save_adapter(adapter, origin.frozen, options.out, notes)
    return [
        f"{options.out}: {lines[0]} in {seconds:.0f} s",
        *lines[1:],
        *similarity_lines(adapter, origin),
        f"frozen model: {origin.frozen.source or 'not known; give its vectors these variances with prolip import'}",
    ]


_Adapted = tuple[Adapter, Origin, dict[str, Any], list[str]]
"""An adapter, its frozen model, notes on how it was made, and lines about it."""


def _learn(options: AdaptOptions) -> _Adapted:
    pairs = open_pairs(options.embeddings, options.masked)
    if pairs.count < 2:
        raise UserError("embeddings", "must hold at least two pairs", f"one in {options.embeddings[0]}")
    origin = find_origin(options, pairs.dim)
    torch.manual_seed(options.heads.seed)
    adapter = Adapter(AdapterConfig(embed_dim=pairs.dim, hidden=options.heads.hidden, means=options.heads.means))
    lines = _fit(adapter, pairs, options)
    notes: dict[str, Any] = {"pairs": pairs.count, "masked": options.masked}
    notes |= {"heads": dataclasses.asdict(options.heads), "loss": dataclasses.asdict(options.loss)}
    return adapter, origin, notes, [f"heads on {pairs.count:,} pairs of {pairs.dim} dimensions", *lines]


def _count(options: AdaptOptions) -> _Adapted:
    bank: dict[Kind, Tensor] = {
        kind: read_bank(options.embeddings, kind, options.counted.bank_size) for kind in get_args(Kind)
    }
    dim = bank["image"].shape[1]
    origin = find_origin(options, dim)
    device = find_device("auto")
    heads, lines, mean = list[CountedHead](), list[str](), 0.0
    for kind, other in _DIRECTIONS:
        items, queries = bank[kind].to(device), bank[other].to(device)
        head, counted = counted_head(queries, items, origin.scale, options.counted)
        heads.append(head.cpu())
        if not len(items) or not len(queries):
            continue
        variance = head.total_var(bank[kind])
        mean += float(variance.mean())
        line = f"uncertainty of {kind}s {variance.mean():.4g} ± {variance.std():.2g} (mean ± standard deviation)"
        if counted is not None:
            line += f"; evenness {counted.evenness:.2f}"
            if head.factor == 0:
                lines.append(
                    f"warning: the {other}s find few of the {kind}s, as if they were of other things: {kind}s get no "
                    "variance; --counted.strength 0.5 counts them all the same"
                )
        lines.append(line)
    adapter = Adapter(AdapterConfig(embed_dim=dim, image=heads[0].config, text=heads[1].config))
    adapter.image, adapter.text = heads
    adapter.set_logits(origin.scale, (origin.bias or 0.0) + origin.scale * mean / 2.0)
    notes = {"counted": dataclasses.asdict(options.counted)}
    sizes = " and ".join(f"{len(rows):,} {kind}s" for kind, rows in bank.items())
    return adapter, origin, notes, [f"variances counted from {sizes}", *lines]


def similarity_lines(adapter: Adapter, origin: Origin) -> list[str]:
    """Lines about the change of scale and bias, with a warning if similarities hardly matter any more."""
    scale, bias = adapter.logit_scale.exp().item(), adapter.logit_bias.item()
    before = "none" if origin.bias is None else f"{origin.bias:.2f}"
    lines = [f"similarity: scale {scale:.2f}, bias {bias:.2f}; the frozen model's: {origin.scale:.2f}, {before}"]
    if scale < 1:
        lines.append(
            "warning: with a scale below 1 the model will classify badly: give more pairs, fewer steps (--heads.steps) "
            "or a smaller --loss.vib_weight"
        )
    return lines


def _fit(adapter: Adapter, pairs: Pairs, options: AdaptOptions) -> list[str]:
    size = min(options.heads.batch_size, pairs.count)
    start_heads(adapter, fit_logits([*islice(pairs.batches(size, seed=0), max(1, min(BUFFER, pairs.count) // size))]))
    first, last = fit_heads(adapter, pairs, options.heads, options.loss)
    shown = ", ".join(f"{name} {float(value):.4g}" for name, value in last._asdict().items() if name != "total")
    lines = [f"loss {float(first.total):.4f} at the start, {float(last.total):.4f} at the end ({shown})"]
    some = pairs.sample(4096)
    with torch.no_grad():
        image, text = adapter.image(some.image).uncertainty, adapter.text(some.text).uncertainty
    lines.append(
        f"uncertainty of images {image.mean():.4g} ± {image.std():.2g}, of texts {text.mean():.4g} ± {text.std():.2g} "
        "(mean ± standard deviation)"
    )
    if max(image.mean(), text.mean()) > 1:
        lines.append("warning: the uncertainty is larger than the embeddings: give more pairs, or harder ones")
    return lines


# ---- The frozen model -----------------------------------------------------------------------------------------------


def find_origin(options: AdaptOptions, dim: int) -> Origin:
    """Find the model that made the embeddings in the folders' manifests.

    It is opened only if these lack its scale, or if `checkpoint` names another source, whose weights must be the same.

    Raises:
        UserError: it is unknown or its embeddings do not have `dim` dimensions, or the folders are of different models.
    """
    folders = [*options.embeddings, *options.masked]
    manifests = [Manifest.read(Folder(folder)) for folder in folders]
    first = manifests[0]
    check(len({manifest.weights for manifest in manifests}) == 1, "embeddings", "must come from one model", folders)
    source, tokenizer = options.checkpoint or first.checkpoint, first.tokenizer
    if source is None:
        return Origin(Frozen(None, None, None), first.logit_scale, first.logit_bias)
    if tokenizer is not None and tokenizer != "clip":
        tokenizer = str(Path(tokenizer).absolute())
    named = absolute_source(source)
    if source == first.checkpoint:
        return Origin(Frozen(named, first.weights, tokenizer), first.logit_scale, first.logit_bias)
    log.info("opening %s for the scale and bias of its similarity", source)
    model = load(source, tokenizer=tokenizer, device="cpu")
    digest = weights_digest(model.network)
    if model.embed_dim != dim or first.weights not in {"", digest}:
        raise UserError("checkpoint", f"must be the model that made the embeddings, of {dim} dimensions", source)
    return Origin(Frozen(named, digest, tokenizer), model.logit_scale, model.logit_bias)
