"""Pictures of shards as a model wants them: from our loader, or where it cannot give them from a model's own transform.

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
from prolip.data.build.intake import UNREADABLE
from prolip.data.device import device_batches
from prolip.data.samples import EXTENSIONS
from prolip.pretrained.eval_model import Preprocess

MAX_BAD_FRACTION = 0.01
"""Share of unreadable pictures past which a set counts as damaged."""


class PictureBatch(NamedTuple):
    """Pictures on a device."""

    images: Tensor
    """f32 [B, 3, H, W], normalised."""
    keys: list[str]
    members: Members
    """The samples' members that are kept, B of each extension."""


def picture_batches(
    preprocess: Preprocess,
    shards: Sequence[str],
    device: torch.device,
    batch_size: int,
    *,
    keep: Sequence[str] = (),
) -> Iterator[PictureBatch]:
    """All pictures of the shards in their order; unreadable ones are left out.

    Args:
        preprocess: how the model wants them.
        shards: paths, addresses or patterns.
        device: where the pictures go.
        batch_size: pictures of a batch, at most.
        keep: extensions of members that are wanted with the pictures.

    Raises:
        ValueError: the shards cannot be read with this preprocessing.
        DataError: a shard is no archive, or too many pictures cannot be read.
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
            yield PictureBatch(batch.images, batch.keys, batch.members)
        _check_whole(loader)


def _check_whole(loader: BatchLoader) -> None:
    """A shard that breaks off counts as one bad sample, however many pictures went with it."""
    stats = loader.stats()
    if "archive" in stats.bad:
        raise DataError(f"{', '.join(loader.config.shards)}: a shard is damaged: {'; '.join(stats.bad_samples)}")


def _transformed(
    transform: Callable[[Any], Tensor], reading: LoaderConfig, device: torch.device
) -> Iterator[PictureBatch]:
    """The loader reads, Pillow decodes: here as in the loader a picture that cannot be decoded is a bad sample."""

    def decode(members: Sequence[bytes | None]) -> Tensor | None:
        try:
            with Image.open(io.BytesIO(next(member for member in members if member is not None))) as picture:
                # First, as the loader does and torchvision's folders do: a palette's numbers cannot be resized.
                return transform(picture.convert("RGB"))
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
            pictures = {place: picture for place, picture in enumerate(decoded) if picture is not None}
            failed += len(decoded) - len(pictures)
            if pictures:
                yield PictureBatch(
                    images=torch.stack(list(pictures.values())).to(device),
                    keys=[batch.keys[place] for place in pictures],
                    members={name: [batch.members[name][place] for place in pictures] for name in keep},
                )
        _check_whole(loader)
        stats = loader.stats()
    failed += sum(stats.bad.values())
    if failed > MAX_BAD_FRACTION * stats.samples:
        raise DataError(f"{', '.join(reading.shards)}: {failed} of {stats.samples} pictures cannot be read")
