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
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from prolip.data import Batch, BatchLoader, Cursor, DataError, LoaderConfig, Members, StoreConfig
from prolip.data.build.folder import find_images
from prolip.data.device import Source, device_batches
from prolip.data.samples import EXTENSIONS
from prolip.errors import UserError
from prolip.pretrained.preprocess import KINDS, AnyImage, Preprocess

MAX_BAD_FRACTION = 0.01
"""Largest share of unreadable images; a set with more counts as damaged."""
Images = AnyImage | Iterable[AnyImage]
"""One image, or several. A text may also name a folder of images, or shards as in `LoaderConfig.shards`."""


class ImageBatch(NamedTuple):
    """Images on a device."""

    images: Tensor
    """f32 [B, 3, H, W], normalised."""
    keys: list[str]
    """B keys."""
    members: Members
    """Kept members of the samples, B per extension."""


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
) -> Iterator[ImageBatch]:
    """Yield batches of all images of the shards, in order; unreadable images are left out.

    Args:
        preprocess: the model's preprocessing.
        shards: paths, addresses or patterns.
        device: where the images go.
        batch_size: images per batch, at most.
        keep: extensions of members to keep.
        num_threads: threads that decode; 0 for this process's share of the cores.
        max_bad_fraction: largest share of unreadable images.
        store: how shards are read; None for the defaults.

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
        num_threads=num_threads,
        max_bad_fraction=max_bad_fraction,
        store=store or StoreConfig(),
    )
    if preprocess.transform is not None:
        yield from _transformed(preprocess, reading, device)
        return
    with BatchLoader(reading) as loader:
        yield from _normalised(loader, preprocess, device)
        _check_whole(loader)


def _normalised(source: Source, preprocess: Preprocess, device: torch.device) -> Iterator[ImageBatch]:
    """A loader's batches, normalised on a device of any kind."""
    via = device if device.type in {"cpu", "cuda"} else torch.device("cpu")
    for batch in device_batches(source, via, mean=preprocess.mean, std=preprocess.std):
        yield ImageBatch(batch.images.to(device), batch.keys, batch.members)


def _check_whole(loader: BatchLoader) -> None:
    """Raise if a shard is truncated: the loader counts that as one bad sample, however many samples are lost."""
    stats = loader.stats()
    if "archive" in stats.bad:
        raise DataError(f"{', '.join(loader.config.shards)}: a shard is damaged: {'; '.join(stats.bad_samples)}")


def _transformed(preprocess: Preprocess, reading: LoaderConfig, device: torch.device) -> Iterator[ImageBatch]:
    """The loader reads and Pillow decodes; an image that Pillow cannot decode counts as a bad sample."""

    def decode(key: str, members: Sequence[bytes | None]) -> Tensor | DataError:
        try:
            return preprocess.decode(next(member for member in members if member is not None), key)
        except DataError as error:
            return error

    keep = reading.keep_members
    members = (*keep, *(extension for extension in EXTENSIONS if extension not in keep))
    failed: list[DataError] = []
    with (
        BatchLoader(replace(reading, image_size=0, keep_members=members, max_bad_fraction=1.0)) as loader,
        ThreadPoolExecutor(reading.num_threads or None, "decode") as pool,
    ):
        for batch in loader:
            encoded = zip(*(batch.members[extension] for extension in EXTENSIONS), strict=True)
            decoded = list(pool.map(decode, batch.keys, encoded))
            images = {place: image for place, image in enumerate(decoded) if isinstance(image, Tensor)}
            failed += [error for error in decoded if isinstance(error, DataError)]
            if images:
                yield ImageBatch(
                    images=torch.stack(list(images.values())).to(device),
                    keys=[batch.keys[place] for place in images],
                    members={name: [batch.members[name][place] for place in images] for name in keep},
                )
        _check_whole(loader)
        stats = loader.stats()
    bad = len(failed) + sum(stats.bad.values())
    if bad > reading.max_bad_fraction * stats.samples:
        named = [*map(str, failed[:3]), *stats.bad_samples[:3]]
        raise DataError(
            f"{', '.join(reading.shards)}: {bad} of {stats.samples} images cannot be read: {'; '.join(named)}"
        )


# ---- Images of any kind ---------------------------------------------------------------------------------------------


class _Entry(NamedTuple):
    """An image, or shards of images."""

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
) -> Iterator[Tensor]:
    """Yield batches of normalised images, f32 [B, 3, H, W] on the device, in order. Every image must be readable.

    Args:
        preprocess: the model's preprocessing.
        images: see `Images`. A folder's images come in the order of their paths, a shard's in its own. A float tensor
            [3, H, W] or [N, 3, H, W] passes unchanged: it is what `preprocess` returned.
        device: where the images go.
        batch_size: images per batch, at most.
        num_threads: threads that decode; 0 for this process's share of the cores.
        store: how remote shards are read; None for the defaults.

    Raises:
        UserError: an image is not of a known kind, or there is no such file, folder or shard.
        DataError: an image cannot be decoded, or a shard is damaged.
    """
    for kind, entries in groupby(_entries(images, preprocess.size), key=lambda entry: entry.kind):
        if kind == "shards":
            shards = [entry.name for entry in entries]
            found = image_batches(
                preprocess, shards, device, batch_size, num_threads=num_threads, max_bad_fraction=0.0, store=store
            )
            yield from (batch.images for batch in found)
        elif kind == "ready":
            ready = (entry.image for entry in entries)
            while some := list(islice(ready, batch_size)):
                yield torch.stack(some).to(device, torch.float32)
        else:
            decoding = _Decoding(entries, preprocess.decode, batch_size, num_threads)
            if preprocess.transform is None:
                yield from (batch.images for batch in _normalised(decoding, preprocess, device))
            else:
                yield from (torch.stack(decoded).to(device) for decoded in decoding.decoded())


def count_images(images: Images) -> int | None:
    """The number of images for a progress bar; None if it is not known before they are read."""
    if _is_one(images):
        return None
    items = images if isinstance(images, Sequence) else None
    some_are_many = items is None or any(isinstance(item, str | os.PathLike) and _is_many(item) for item in items)
    return None if items is None or some_are_many else len(items)


class _Decoding:
    """Decodes images in threads, up to two batches ahead. A source of `device_batches`."""

    def __init__(
        self, entries: Iterator[_Entry], decode: Callable[[AnyImage, str], Tensor], batch_size: int, num_threads: int
    ) -> None:
        self._entries, self._decode, self._batch_size = entries, decode, batch_size
        self._num_threads = num_threads or None
        self._waiting: deque[Future[Tensor]] = deque()

    @property
    def ready(self) -> int:
        """1 if a whole batch is decoded, else 0."""
        some = list(islice(self._waiting, self._batch_size))
        return int(bool(some) and all(future.done() for future in some))

    def stats(self) -> _Decoding:
        """Return this object, which has `ready`."""
        return self

    def decoded(self) -> Iterator[list[Tensor]]:
        """Decoded images, a batch at a time."""
        with ThreadPoolExecutor(self._num_threads, "decode") as pool:
            try:
                for entry in self._entries:
                    self._waiting.append(pool.submit(self._decode, entry.image, entry.name))
                    if len(self._waiting) >= 2 * self._batch_size:
                        yield self._take()
                while self._waiting:
                    yield self._take()
            finally:
                for future in self._waiting:
                    future.cancel()

    def _take(self) -> list[Tensor]:
        count = min(self._batch_size, len(self._waiting))
        return [self._waiting.popleft().result() for _ in range(count)]

    def __iter__(self) -> Iterator[Batch]:
        for decoded in self.decoded():
            yield Batch(
                images=torch.stack(decoded).numpy(),
                token_ids=np.zeros((0, len(decoded), 0), dtype=np.int32),
                masked_token_ids=None,
                kept_patches=None,
                keys=[],
                members={},
                cursor=Cursor(),
            )


# ---- Which kinds of images a caller may pass -------------------------------------------------------------------------

_SHARDS = re.compile(r"\.(tar(\.\w+)?|tgz|txt)(\?.*)?$|^(@|pipe:)")


def _is_one(images: Images) -> bool:
    """Whether it is one image, and not several."""
    if isinstance(images, np.ndarray | Tensor):
        return images.ndim <= 3
    return isinstance(images, (str, os.PathLike, bytes, bytearray, memoryview, Image.Image))


def _is_many(name: str | os.PathLike[str]) -> bool:
    """Whether a path names shards or a folder."""
    text = os.fspath(name)
    return bool(_SHARDS.search(text)) or "://" in text or os.path.isdir(text)


def _entries(images: Images, size: tuple[int, int]) -> Iterator[_Entry]:
    """Yield the images one by one; a folder stands for the images in it.

    Raises:
        UserError: one is not of a known kind, or a folder has no image.
    """
    several = [cast(AnyImage, images)] if _is_one(images) else images
    if not isinstance(several, Iterable):
        raise UserError(f"images is a {type(images).__name__}: {KINDS}, or a list of them")
    for place, image in enumerate(several):
        name = f"images[{place}]"
        if isinstance(image, str | os.PathLike):
            yield from _named(os.fspath(image), name)
        elif isinstance(image, Tensor) and image.is_floating_point():
            pixels = image[None] if image.ndim == 3 else image
            if pixels.ndim != 4 or tuple(pixels.shape[1:]) != (3, *size):
                raise UserError(
                    f"{name} is a float tensor {list(image.shape)}: the model takes [3, {size[0]}, {size[1]}], as "
                    "model.preprocess returns it"
                )
            yield from (_Entry("ready", name, row) for row in pixels)
        elif isinstance(image, np.ndarray | Tensor) and image.ndim == 4:
            yield from (_Entry("decode", f"{name}[{row}]", part) for row, part in enumerate(image))
        elif isinstance(image, bytes | bytearray | memoryview):
            yield _Entry("decode", name, bytes(image))
        elif isinstance(image, Image.Image | np.ndarray | Tensor):
            yield _Entry("decode", name, image)
        else:
            raise UserError(f"{name} is a {type(image).__name__}: {KINDS}")


def _named(text: str, name: str) -> Iterator[_Entry]:
    """Entries of a path or an address."""
    if os.path.isdir(text):
        files = find_images(Path(text))
        if not files:
            hint = f": for its shards, write '{text}/*.tar'" if any(Path(text).glob("*.tar")) else ""
            raise UserError(f"{name}: the folder {text} has no image{hint}")
        yield from (_Entry("decode", str(path), path) for path in files)
    elif _SHARDS.search(text):
        yield _Entry("shards", text, text)
    elif "://" in text:
        raise UserError(f"{name}: {text} is the address of a file: only shards (.tar) are read from addresses")
    else:
        yield _Entry("decode", text, text)
