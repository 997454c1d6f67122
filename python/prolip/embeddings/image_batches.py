"""Batches of images in a model's own preprocessing: from the loader, or from the model's transform where it differs.

B batch, H/W pixels.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from prolip.data import BatchLoader, DataError, LoaderConfig, Members
from prolip.data.build.images import UNREADABLE
from prolip.data.device import device_batches
from prolip.data.samples import EXTENSIONS
from prolip.pretrained.eval_model import Preprocess

MAX_BAD_FRACTION = 0.01
"""Largest share of unreadable images; a set with more counts as damaged."""


class ImageBatch(NamedTuple):
    """Images on a device."""

    images: Tensor
    """f32 [B, 3, H, W], normalised."""
    keys: list[str]
    """B keys."""
    members: Members
    """Kept members of the samples, B per extension."""


def image_batches(
    preprocess: Preprocess,
    shards: Sequence[str],
    device: torch.device,
    batch_size: int,
    *,
    keep: Sequence[str] = (),
) -> Iterator[ImageBatch]:
    """All images of the shards, in order; unreadable images are left out.

    Args:
        preprocess: the model's preprocessing.
        shards: paths, addresses or patterns.
        device: where the images go.
        batch_size: images per batch, at most.
        keep: extensions of members to keep.

    Raises:
        ValueError: the shards cannot be read with this preprocessing.
        DataError: a shard is not an archive, or too many images are unreadable.
    """
    reading = LoaderConfig(
        shards=tuple(shards),
        batch_size=batch_size,
        image_size=preprocess.size[0],
        captions=(),
        shuffle_window=0,
        last_batch="keep",
        keep_members=tuple(keep),
        max_bad_fraction=MAX_BAD_FRACTION,
    )
    if preprocess.transform is not None:
        yield from _transformed(preprocess.transform, reading, device)
        return
    with BatchLoader(reading) as loader:
        for batch in device_batches(loader, device, mean=preprocess.mean, std=preprocess.std):
            yield ImageBatch(batch.images, batch.keys, batch.members)
        _check_whole(loader)


def _check_whole(loader: BatchLoader) -> None:
    """Raise if a shard is truncated: the loader counts that as one bad sample, however many samples are lost."""
    stats = loader.stats()
    if "archive" in stats.bad:
        raise DataError(f"{', '.join(loader.config.shards)}: a shard is damaged: {'; '.join(stats.bad_samples)}")


def _transformed(
    transform: Callable[[Any], Tensor], reading: LoaderConfig, device: torch.device
) -> Iterator[ImageBatch]:
    """The loader reads and Pillow decodes; an image that Pillow cannot decode counts as a bad sample."""

    def decode(members: Sequence[bytes | None]) -> Tensor | None:
        try:
            with Image.open(io.BytesIO(next(member for member in members if member is not None))) as image:
                # RGB first, as in the loader and in torchvision's folders: indices into a palette cannot be resized.
                return transform(image.convert("RGB"))
        except UNREADABLE:
            return None

    keep = reading.keep_members
    members = (*keep, *(extension for extension in EXTENSIONS if extension not in keep))
    failed = 0
    with (
        BatchLoader(replace(reading, image_size=0, keep_members=members, max_bad_fraction=1.0)) as loader,
        ThreadPoolExecutor() as pool,
    ):
        for batch in loader:
            encoded = zip(*(batch.members[extension] for extension in EXTENSIONS), strict=True)
            decoded = list(pool.map(decode, encoded))
            images = {place: image for place, image in enumerate(decoded) if image is not None}
            failed += len(decoded) - len(images)
            if images:
                yield ImageBatch(
                    images=torch.stack(list(images.values())).to(device),
                    keys=[batch.keys[place] for place in images],
                    members={name: [batch.members[name][place] for place in images] for name in keep},
                )
        _check_whole(loader)
        stats = loader.stats()
    failed += sum(stats.bad.values())
    if failed > MAX_BAD_FRACTION * stats.samples:
        raise DataError(f"{', '.join(reading.shards)}: {failed} of {stats.samples} images cannot be read")
