"""Batches of images in a model's own preprocessing, from shards, folders, files or memory.

The loader decodes shards; a pool of threads decodes everything else, a batch ahead of the model. If a model expects
other pixels than the loader's, its own transform runs in threads.

B batch, H/W pixels.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from prolip.data import Batch, BatchLoader, DataError, LoaderConfig, Members, StoreConfig, without_secrets
from prolip.data.build.folder import find_images
from prolip.data.device import device_batches
from prolip.data.samples import EXTENSIONS
from prolip.distributed import usable_cores
from prolip.errors import UserError, check
from prolip.image_tensors import Patches
from prolip.inference.preprocess import KINDS, AnyImage, Preprocess

MAX_BAD_FRACTION = 0.01
"""Maximum share of unreadable images; a set with more counts as damaged."""
Images = AnyImage | Iterable[AnyImage]
"""One image, or several. A text may also name a folder of images, or shards as in `LoaderConfig.shards`."""
Item = TypeVar("Item")
Decoded = TypeVar("Decoded")


class ImageBatch(NamedTuple):
    """Images on a device."""

    images: Tensor | Patches
    """f32 [B, 3, H, W], normalised; of a native model, padded patches."""
    keys: list[str]
    """B keys."""
    members: Members
    """Kept members of the samples, B per extension."""


def decoded_ahead(
    batches: Iterable[Sequence[Item]], decode: Callable[[Item], Decoded], num_threads: int
) -> Iterator[list[tuple[Item, Decoded]]]:
    """Yield batches of items, each with what `decode` returned for it in a thread. Threads work one batch ahead.

    Args:
        batches: the batches.
        decode: runs in a thread.
        num_threads: number of threads; 0 for the cores that this process may use.
    """
    waiting: deque[list[tuple[Item, Future[Decoded]]]] = deque()

    def take() -> list[tuple[Item, Decoded]]:
        return [(item, future.result()) for item, future in waiting.popleft()]

    with ThreadPoolExecutor(num_threads or usable_cores(), "decode") as pool:
        try:
            for items in batches:
                waiting.append([(item, pool.submit(decode, item)) for item in items])
                if len(waiting) > 1:
                    yield take()
            while waiting:
                yield take()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


# ---- Shards ---------------------------------------------------------------------------------------------------------


def image_batches(
    preprocess: Preprocess,
    shards: Sequence[str],
    device: torch.device,
    batch_size: int,
    *,
    keep: Sequence[str] = (),
    num_threads: int = 0,
    max_bad_fraction: float = MAX_BAD_FRACTION,
    store: StoreConfig | None = None,
    selection: str | None = None,
) -> Iterator[ImageBatch]:
    """Yield batches of all images of the shards, in order; unreadable images are left out.

    Args:
        preprocess: the model's preprocessing.
        shards: paths, addresses or patterns.
        device: where the images go.
        batch_size: maximum number of images per batch.
        keep: extensions of members to keep.
        num_threads: threads that decode; 0 for this process's share of the cores.
        max_bad_fraction: maximum share of unreadable images.
        store: how shards are read; None for the defaults.
        selection: path of a selection of the shards' samples; None for all.

    Raises:
        UserError: there is no such shard, or the shards cannot be read with this preprocessing.
        DataError: a shard is not an archive, or too many images are unreadable.
    """
    reading = LoaderConfig(
        shards=tuple(shards),
        batch_size=batch_size,
        image_size=preprocess.size[0],
        native=preprocess.native(batch_size),
        captions=(),
        shuffle_window=0,
        last_batch="keep",
        keep_members=tuple(keep),
        num_threads=num_threads,
        max_bad_fraction=max_bad_fraction,
        store=store or StoreConfig(),
        selection=selection,
    )
    if preprocess.transform is not None:
        yield from _transformed(preprocess, reading, device)
        return
    via = device if device.type in {"cpu", "cuda"} else torch.device("cpu")
    with BatchLoader(reading) as loader:
        for batch in device_batches(loader, via, mean=preprocess.mean, std=preprocess.std):
            yield ImageBatch(batch.images.to(device), batch.keys, batch.members)
        _check_whole(loader)


def _transformed(preprocess: Preprocess, reading: LoaderConfig, device: torch.device) -> Iterator[ImageBatch]:
    """The loader reads and Pillow decodes; an image that Pillow cannot decode counts as a bad sample."""
    failed: list[DataError] = []

    def decode(sample: tuple[Batch, int]) -> Tensor | None:
        batch, row = sample
        try:
            return preprocess.decode(encoded_image(batch, row), batch.keys[row])
        except DataError as error:
            failed.append(error)
            return None

    keep = reading.keep_members
    members = (*keep, *(extension for extension in EXTENSIONS if extension not in keep))
    with BatchLoader(replace(reading, image_size=0, keep_members=members)) as loader:
        samples = ([(batch, row) for row in range(len(batch.keys))] for batch in loader)
        for decoded in decoded_ahead(samples, decode, reading.num_threads):
            good = [(sample, image) for sample, image in decoded if image is not None]
            if good:
                yield ImageBatch(
                    images=torch.stack([image for _, image in good]).to(device),
                    keys=[batch.keys[row] for (batch, row), _ in good],
                    members={name: [batch.members[name][row] for (batch, row), _ in good] for name in keep},
                )
        _check_whole(loader)
        samples_read = loader.stats().samples
    if len(failed) > reading.max_bad_fraction * samples_read:
        raise DataError(f"{_shown(reading)}: {len(failed)} of {samples_read} images are unreadable: {failed[0]}")


def _check_whole(loader: BatchLoader) -> None:
    """Raise if a shard is truncated: the loader counts that as one bad sample, however many samples are lost."""
    stats = loader.stats()
    if "archive" in stats.bad:
        raise DataError(f"{_shown(loader.config)}: a shard is damaged: {'; '.join(stats.bad_samples)}")


def _shown(config: LoaderConfig) -> str:
    more = f" and {len(config.shards) - 1} more" if len(config.shards) > 1 else ""
    return f"{without_secrets(config.shards[0])}{more}"


def encoded_image(batch: Batch, row: int) -> bytes:
    """The image of a sample of a loader that keeps the members named in `EXTENSIONS`."""
    return next(data for name in EXTENSIONS if (data := batch.members[name][row]) is not None)


# ---- Images of any kind ---------------------------------------------------------------------------------------------


class _Entry(NamedTuple):
    kind: str
    """`shards`; `decode` for an image to be decoded; `ready` for pixels that are normalised already."""
    name: str
    image: Any


def read_images(
    preprocess: Preprocess,
    images: Images,
    device: torch.device,
    batch_size: int,
    *,
    num_threads: int = 0,
    store: StoreConfig | None = None,
) -> Iterator[Tensor | Patches]:
    """Yield batches of normalised images, as in `ImageBatch`, on the device, in order. Every image must be readable.

    The arguments are those of `Model.encode_images`.

    Raises:
        UserError: an image is not of a known kind, or there is no such file, folder or shard.
        DataError: an image cannot be decoded, or a shard is damaged.
    """
    for kind, entries in groupby(_entries(images, preprocess), key=lambda entry: entry.kind):
        if kind == "shards":
            shards = [entry.name for entry in entries]
            found = image_batches(
                preprocess, shards, device, batch_size, num_threads=num_threads, max_bad_fraction=0.0, store=store
            )
            yield from (batch.images for batch in found)
            continue
        batches = _batched(entries, batch_size)
        if kind == "ready":
            yield from (preprocess.batch([entry.image for entry in some], device) for some in batches)
            continue
        for decoded in decoded_ahead(batches, lambda entry: preprocess.decode(entry.image, entry.name), num_threads):
            yield preprocess.batch([image for _, image in decoded], device)


def _batched(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    while some := list(islice(items, size)):
        yield some


def count_images(images: Images) -> int | None:
    """The number of images for a progress bar; None if it is not known before they are read."""
    if _is_one(images) or not isinstance(images, Sequence):
        return None
    return None if any(isinstance(item, str | os.PathLike) and is_many(item) for item in images) else len(images)


_SHARDS = re.compile(r"\.(tar(\.\w+)?|tgz|txt)(\?.*)?$|^(@|pipe:)")


def _is_one(images: Images) -> bool:
    if isinstance(images, np.ndarray | Tensor):
        return images.ndim <= 3
    return isinstance(images, (str, os.PathLike, bytes, bytearray, memoryview, Image.Image))


def is_many(name: str | os.PathLike[str]) -> bool:
    """Whether a name is that of a folder, shards or an address, and not of an image."""
    text = os.fspath(name)
    return bool(_SHARDS.search(text)) or "://" in text or os.path.isdir(text)


def _entries(images: Images, preprocess: Preprocess) -> Iterator[_Entry]:
    """Yield the images one by one; a folder stands for the images in it."""
    several = [cast(AnyImage, images)] if _is_one(images) else images
    if not isinstance(several, Iterable) or hasattr(several, "read"):  # the items of an open file are lines
        raise UserError("images", f"{KINDS}, or a list of them", f"a {type(images).__name__}")
    for place, image in enumerate(several):
        name = f"images[{place}]"
        if isinstance(image, str | os.PathLike):
            yield from _named(os.fspath(image), name)
        elif isinstance(image, Tensor) and image.is_floating_point():
            pixels = image[None] if image.ndim == 3 else image
            if not preprocess.accepts(pixels.shape[1:]):
                form = [3, *preprocess.size] if preprocess.image_seq_len is None else "made by model.preprocess"
                raise UserError(name, f"a float tensor must be {form}", list(image.shape))
            yield from (_Entry("ready", name, row) for row in pixels.float())
        elif isinstance(image, np.ndarray | Tensor) and image.ndim == 4:
            yield from (_Entry("decode", f"{name}[{row}]", part) for row, part in enumerate(image))
        else:
            yield _Entry("decode", name, image)


def _named(text: str, name: str) -> Iterator[_Entry]:
    if os.path.isdir(text):
        files = find_images(Path(text))
        check(files, name, f"the folder {text} has no image; shards are named as '{text}/*.tar'")
        yield from (_Entry("decode", str(path), path) for path in files)
    elif _SHARDS.search(text):
        yield _Entry("shards", text, text)
    else:
        yield _Entry("decode", text, text)
