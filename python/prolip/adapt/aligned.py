"""Align two frozen encoders: train a linear head for each on cached features (`prolip adapt --image --text`).

B batch, N images, F features of an encoder.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import sys
import time
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from prolip.adapt.config import AdaptOptions, AlignConfig
from prolip.adapt.features import Features, read_features
from prolip.data import StoreConfig
from prolip.datasets.data_set import open_classes, open_dataset
from prolip.distributed import find_device
from prolip.inference.aligned import image_digest, text_digest
from prolip.models.aligned import ALIGNED_FILE, AlignedHead, Encoders, Heads, save_aligned
from prolip.pretrained.encoders import open_image_tower, open_text_tower
from prolip.store.atomic_writes import check_own_folder, write_atomic

_DECAYS = (0.1, 1.0, 4.0)
"""Weight decays to choose from."""
_LR = 5e-4
_LOGIT_LR_FACTOR = 5.0
_CHECK_EVERY = 50
"""Steps between measurements of the held-out loss."""
_PATIENCE = 6
"""Measurements without a better loss after which training stops."""
_MAX_CHECKS = 60
_TRIAL = 50_000
"""Maximum number of images on which settings are chosen."""
_HELD_OUT = 0.15
_MAX_HELD_OUT = 4096
_STATISTICS = 16_384
"""Images, and captions, whose features' mean and scale are taken as those of all."""
_BANK = 4096
_MARK = "features/about.txt"
"""Tells the command's own folder before the model is written."""


class Batch(NamedTuple):
    """Features of images and of a caption of each, f32 [B, F], and which pairs match, bool [B, B]."""

    image: Tensor
    text: Tensor
    match: Tensor


def run_align(options: AdaptOptions) -> list[str]:
    """Align the encoders, write the model to a folder, and return the lines to print.

    Raises:
        UserError: an encoder or the data cannot be used, or the output folder holds other files.
        DataError: images are unreadable, or have no label or caption.
    """
    assert options.image
    assert options.text
    assert options.data
    check_own_folder(options.out, ALIGNED_FILE, _MARK)
    write_atomic(options.out / _MARK, "Features of `prolip adapt`, for another training; they may be deleted.\n")
    begun = time.monotonic()
    image, text = open_image_tower(options.image), open_text_tower(options.text)
    store, align = StoreConfig(), options.align
    data = open_dataset(options.data, store, align.selection)
    if data.classnames:
        data = open_classes(options.data, store, align.templates, selection=align.selection)
    device = find_device("auto")
    features = read_features(data, align.caption_key, image, text, device, (options.out / _MARK).parent)
    read = time.monotonic() - begun
    heads, chosen = fit_aligned(features, align)
    encoders = Encoders(options.image, options.text, image_digest(image), text_digest(text))
    notes = {"data": options.data, "images": len(features.image), "align": dataclasses.asdict(align), **chosen}
    save_aligned(heads, encoders, options.out, notes)
    seconds = time.monotonic() - begun
    return [
        f"{options.out}: heads on {len(features.image):,} images and {len(features.text):,} captions in {seconds:.0f} s"
        f" ({read:.0f} s of it for features)",
        f"chosen on held-out images: {', '.join(f'{name} {value:.4g}' for name, value in chosen.items())}",
    ]


def fit_aligned(features: Features, config: AlignConfig) -> tuple[Heads, dict[str, float]]:
    """Train the heads; returns them and what was chosen.

    Weight decay and the number of steps are those with the smallest loss of held-out images, 15 % of at most 50,000;
    heads are then trained anew with them, on all images.
    """
    order = np.random.default_rng(config.seed).permutation(len(features.image))
    trial = order[:_TRIAL]
    held = trial[: min(_MAX_HELD_OUT, max(2, round(_HELD_OUT * len(trial))))]
    rest = trial[len(held) :]
    start = _start(features, order[:_STATISTICS], config)
    best, decay, steps = math.inf, _DECAYS[0], 0
    for one in _DECAYS:
        loss, after, _ = _train(copy.deepcopy(start), features, rest, one, _MAX_CHECKS * _CHECK_EVERY, config, held)
        if loss < best:
            best, decay, steps = loss, one, after
    steps = math.ceil(steps * max(1, len(order) / _TRIAL))
    _, _, heads = _train(start, features, order, decay, steps, config)
    _fill_bank(heads.image, features.image[np.sort(order[:_BANK])], heads)
    texts = np.random.default_rng(config.seed).permutation(len(features.text))[:_BANK]
    _fill_bank(heads.text, features.text[np.sort(texts)], heads)
    return heads.eval(), {"weight decay": decay, "steps": steps, "loss": best}


def _start(features: Features, rows: NDArray[Any], config: AlignConfig) -> Heads:
    """New heads, which standardise features."""
    torch.manual_seed(config.seed)
    parts = []
    for table, some in ((features.image, np.sort(rows)), (features.text, slice(_STATISTICS))):
        sample = torch.from_numpy(np.array(table[some], np.float32))
        head = AlignedHead(sample.shape[1], config.embed_dim, 0)
        parts.append(head)
        centre = sample.mean(0)
        spread = (sample - centre).square().mean().sqrt().clamp(min=1e-6)
        with torch.no_grad():
            nn.init.normal_(head.linear.weight, std=sample.shape[1] ** -0.5)
            head.linear.weight /= spread
            head.linear.bias.copy_(-(head.linear.weight @ centre))
    return Heads(*parts)


def draw(features: Features, rows: NDArray[Any], generator: np.random.Generator) -> Batch:
    """The images of these rows, each with one of its captions."""
    first, count = features.first[rows], np.diff(features.first)[rows]
    caption = features.ids[first + (generator.random(len(rows)) * count).astype(np.int64)]
    group = torch.from_numpy(features.group[rows])
    same = torch.from_numpy(caption)
    match = (group[:, None] == group) | (same[:, None] == same)
    image, text = (
        torch.from_numpy(np.asarray(table[some], np.float32))
        for table, some in ((features.image, rows), (features.text, caption))
    )
    return Batch(image, text, match)


def aligned_loss(heads: Heads, batch: Batch) -> Tensor:
    """SigLIP's loss per image, where all pairs with the same captions match."""
    image, text = heads.image.means(batch.image), heads.text.means(batch.text)
    logits = heads.logit_scale.exp() * image @ text.T + heads.logit_bias
    return (F.softplus(logits) - batch.match * logits).sum() / len(logits)


def _train(
    heads: Heads,
    features: Features,
    rows: NDArray[Any],
    decay: float,
    steps: int,
    config: AlignConfig,
    held: NDArray[Any] | None = None,
) -> tuple[float, int, Heads]:
    """Train; returns the smallest held-out loss, the steps until then, and the heads at the end."""
    generator = np.random.default_rng(config.seed)
    size = min(config.batch_size, max(2, len(rows) // 10))
    probe = draw(features, rows[:size], generator)
    density = float(probe.match.float().mean())
    with torch.no_grad():
        heads.logit_bias.fill_(math.log(density / max(1 - density, 1e-3)))
    logits = [heads.logit_scale, heads.logit_bias]
    weights = [heads.image.linear.weight, heads.text.linear.weight]
    biases = [heads.image.linear.bias, heads.text.linear.bias]
    groups = [(weights, decay, 1.0), (biases, 0.0, 1.0), (logits, 0.0, _LOGIT_LR_FACTOR)]
    optimizer = torch.optim.AdamW(
        [{"params": some, "weight_decay": one, "lr": _LR * factor} for some, one, factor in groups], betas=(0.9, 0.98)
    )
    best, after, waited = math.inf, 0, 0
    queue = np.empty(0, np.int64)
    bar = tqdm(range(steps), desc="heads", unit="step", file=sys.stderr, disable=None)
    for step in bar:
        if len(queue) < size:
            queue = np.concatenate([queue, rows[generator.permutation(len(rows))]])
        some, queue = queue[:size], queue[size:]
        loss = aligned_loss(heads, draw(features, some, generator))
        if not bool(loss.isfinite()):
            raise RuntimeError(f"the loss at step {step} must be finite")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if held is not None and (step + 1) % _CHECK_EVERY == 0:
            with torch.no_grad():
                parts = [held[place : place + size] for place in range(0, len(held), size)]
                now = np.mean(
                    [float(aligned_loss(heads, draw(features, one, np.random.default_rng(0)))) for one in parts]
                )
            waited += 1
            if now < best:
                best, after, waited = float(now), step + 1, 0
            elif waited >= _PATIENCE:
                break
    bar.close()
    return best, after, heads


def _fill_bank(head: AlignedHead, rows: NDArray[Any], heads: Heads) -> None:
    """Remember trained items. Variances are in units in which a logit changes by one half at a distance of 1."""
    with torch.no_grad():
        head.bank = head.means(torch.from_numpy(np.array(rows, np.float32)))
        head.factor.copy_(1.0 / heads.logit_scale.exp())
