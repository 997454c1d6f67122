"""`Encoder`: takes samples of any source, and yields rows of Gaussians.

    shards ---- the loader's threads ----> pixels, token ids --+
                                                               +--> the model --> `Encoded` --> a sink
    files, lists, columns ---- a pool of threads --------------+

The pool also prepares the samples of shards if images are not square, or captions have no tokenizer of ours. Both work
ahead of the model. B batch, C caption slots, L tokens, H/W pixels, D dimensions.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

import torch
from torch import Tensor

from prolip.data import (
    Batch,
    BatchLoader,
    CaptionConfig,
    CaptionSource,
    DataError,
    LoaderConfig,
    Members,
    StoreConfig,
    without_secrets,
)
from prolip.data.device import device_batches
from prolip.data.samples import EXTENSIONS, captions_at, encoded_image
from prolip.distributed import usable_cores
from prolip.errors import UserError
from prolip.gaussian import Gaussian, concatenate
from prolip.image_tensors import Patches
from prolip.inference.forward import on_cpu
from prolip.inference.preprocess import pixel_size
from prolip.inference.samples import Images, Sample, samples_of

if TYPE_CHECKING:
    from prolip.inference.model import Model

MAX_BAD_FRACTION = 0.01
"""Maximum share of unreadable images; a set with more counts as damaged."""
View = Callable[[Tensor | Patches], Gaussian]
"""Maps normalised images on the model's device, f32 [B, 3, H, W] or patches, to Gaussians [B, D]."""
Item = TypeVar("Item")
Decoded = TypeVar("Decoded")


class Bad(NamedTuple):
    """A sample that cannot be used, and why."""

    key: str
    place: int
    error: UserError | DataError


class Encoded(NamedTuple):
    """Embedded samples in order, on the CPU in float32. B may be 0."""

    keys: list[str]
    places: list[int]
    """Places in the source, from 0."""
    sizes: list[Sequence[int]]
    """Width and height of the images in their files; 0 if unknown."""
    members: Members
    """B per extension."""
    bad: Sequence[Bad] = ()
    """Samples that the pool left out. Those that the loader left out are in its statistics."""
    images: Mapping[str, Gaussian] = MappingProxyType({})
    """[B, D] by view; empty if B is 0."""
    text: Gaussian | None = None
    """[C, B, D]; None without captions."""
    token_ids: Tensor | None = None
    """i64 [C, B, L]; None without captions."""
    wait_seconds: float = 0.0
    """How long the model waited for the batch."""

    @property
    def gaussian(self) -> Gaussian:
        """The images as the model encodes them, [B, D]."""
        return self.images["image"]


class _Prepared(NamedTuple):
    rows: Encoded
    pixels: Tensor | Patches | None
    token_ids: Tensor | None


class _Ready(NamedTuple):
    pixels: Tensor | None
    size: tuple[int, int]
    captions: list[str]


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A model, and what to make of each sample."""

    model: Model
    views: Mapping[str, View] | None = None
    """Ways to encode the images; None for `image` alone, the model's own. Empty for captions alone."""
    caption_keys: tuple[str, ...] = ()
    """C places of captions: `txt`, or a dotted path into a sample's json, whose first text is used."""
    keep: tuple[str, ...] = ()
    """Extensions of members to keep."""
    batch_size: int = 128
    """Maximum number of samples per forward pass."""
    threads: int = 0
    """Threads that decode; 0 for this process's share of the cores."""
    on_progress: Callable[[int], object] | None = None
    """Called with the number of samples of each batch."""

    # ---- Sources ----

    def loader(
        self,
        shards: Sequence[str],
        *,
        store: StoreConfig | None = None,
        selection: str | None = None,
        max_bad_fraction: float = 1.0,
    ) -> BatchLoader:
        """Open shards for `of_loader`.

        Raises:
            UserError: there is no such shard, or the shards cannot be read with the model's preprocessing.
            NoSampleError: the shards are empty.
            DataError: a shard is missing or is not an archive.
        """
        model, preprocess = self.model, self.model.preprocess
        config = LoaderConfig(
            shards=tuple(shards),
            batch_size=self.batch_size,
            image_size=0,
            captions=(),
            keep_members=self.keep,
            shuffle_window=0,
            last_batch="keep",
            num_threads=self.threads,
            max_bad_fraction=max_bad_fraction,
            store=store or StoreConfig(),
            selection=selection,
        )
        height, width = preprocess.pixels.sides
        if height != width or (self.caption_keys and model.prolip is None):
            texts = ("txt" if key == "txt" else "json" for key in self.caption_keys)
            return BatchLoader(replace(config, keep_members=tuple(dict.fromkeys((*self.keep, *EXTENSIONS, *texts)))))
        native = preprocess.native(self.batch_size)
        config = replace(config, image_size=height, fit=preprocess.pixels.fit, native=native)
        if self.caption_keys:
            slots = tuple(CaptionConfig(sources=(CaptionSource(key=key),)) for key in self.caption_keys)
            config = replace(config, captions=slots, tokenizer=model.require_tokenizer().config)
        return BatchLoader(config)

    def of_loader(self, loader: BatchLoader) -> Iterator[Encoded]:
        """The rows of a loader; its threads begin at once."""
        if not loader.config.image_size:
            return self.of_samples(map(_samples_of_batch, loader))
        device, preprocess = self.model.device, self.model.preprocess
        via = device if device.type in {"cpu", "cuda"} else torch.device("cpu")
        batches = device_batches(loader, via, mean=preprocess.pixels.mean, std=preprocess.pixels.std)
        return self._encoded(
            _Prepared(
                Encoded(batch.keys, batch.rows.tolist(), batch.sizes.tolist(), batch.members),
                batch.images.to(device),
                batch.token_ids if self.caption_keys else None,
            )
            for batch in batches
        )

    def of_samples(self, batches: Iterable[Sequence[Sample]]) -> Iterator[Encoded]:
        """The rows of batches of samples."""
        return self._encoded(map(self._join, decoded_ahead(batches, self._prepare, self.threads)))

    def of_captions(self, captions: Sequence[str], first: int = 0) -> Iterator[Encoded]:
        """The rows of captions. Their keys are their places, counted from `first`."""
        numbered = in_batches(enumerate(captions, first), self.batch_size)
        return self._encoded(
            _Prepared(
                Encoded([str(place) for place, _ in some], [place for place, _ in some], [(0, 0)] * len(some), {}),
                None,
                self.model.tokenize([caption for _, caption in some])[None],
            )
            for some in numbered
        )

    def of_shards(
        self,
        shards: Sequence[str],
        *,
        store: StoreConfig | None = None,
        selection: str | None = None,
        max_bad_fraction: float = MAX_BAD_FRACTION,
    ) -> Iterator[Encoded]:
        """The rows of shards, of which at most this fraction may be unreadable.

        Raises:
            UserError: as for `loader`.
            DataError: a shard is not an archive or is damaged, or too many images are unreadable.
        """
        shown = f"{without_secrets(shards[0])}{f' and {len(shards) - 1} more' if len(shards) > 1 else ''}"
        bad: list[Bad] = []
        with self.loader(shards, store=store, selection=selection, max_bad_fraction=max_bad_fraction) as loader:
            for rows in self.of_loader(loader):
                bad += rows.bad
                yield rows
            stats = loader.stats()
        # The loader counts a truncated shard as one bad sample, however many samples are lost.
        if "archive" in stats.bad:
            raise DataError(f"{shown}: a shard is damaged: {'; '.join(stats.bad_samples)}")
        if len(bad) > max_bad_fraction * stats.samples:
            first = f"{bad[0].key}: {bad[0].error}"
            raise DataError(f"{shown}: {len(bad)} of {stats.samples} images are unreadable: {first}")

    def of_images(self, images: Images, store: StoreConfig | None = None) -> Iterator[Encoded]:
        """The rows of images of any kind, all of which must be readable.

        Raises:
            UserError: an image is not of a known kind, or there is no such file, folder or shard.
            DataError: an image cannot be decoded, or a shard is damaged.
        """
        for are_shards, some in groupby(samples_of(images), lambda one: isinstance(one, str)):
            if are_shards:
                yield from self.of_shards([*cast(Iterator[str], some)], store=store, max_bad_fraction=0.0)
                continue
            for rows in self.of_samples(in_batches(cast(Iterator[Sample], some), self.batch_size)):
                for bad in rows.bad:
                    raise bad.error
                yield rows

    # ---- The pool ----

    def _prepare(self, sample: Sample) -> _Ready | Bad:
        try:
            captions = []
            for key in self.caption_keys:
                texts = captions_at(sample.key, sample.members, key)
                if not texts:
                    raise DataError(f"it has no caption at {key!r}")
                captions.append(texts[0])
            if not self._views:
                return _Ready(None, (0, 0), captions)
            preprocess, image, size = self.model.preprocess, sample.image, (0, 0)
            if isinstance(image, bytes | Path):
                size = pixel_size(image, turned=preprocess.pixels.turned)
            return _Ready(preprocess.decode(image, sample.name), size, captions)
        except (UserError, DataError) as error:
            return Bad(sample.key, sample.place, error)

    def _join(self, batch: Sequence[tuple[Sample, _Ready | Bad]]) -> _Prepared:
        good = [(sample, ready) for sample, ready in batch if isinstance(ready, _Ready)]
        rows = Encoded(
            keys=[sample.key for sample, _ in good],
            places=[sample.place for sample, _ in good],
            sizes=[ready.size for _, ready in good],
            members={name: [sample.members.get(name) for sample, _ in good] for name in self.keep},
            bad=[ready for _, ready in batch if isinstance(ready, Bad)],
        )
        pixels = [ready.pixels for _, ready in good if ready.pixels is not None]
        ids = [self.model.tokenize(slot) for slot in zip(*(ready.captions for _, ready in good), strict=True)]
        images = self.model.preprocess.batch(pixels, self.model.device) if pixels else None
        return _Prepared(rows, images, torch.stack(ids) if ids else None)

    # ---- The model ----

    @property
    def _views(self) -> Mapping[str, View]:
        return {"image": self.model.encode_pixels} if self.views is None else self.views

    def _encoded(self, batches: Iterable[_Prepared]) -> Iterator[Encoded]:
        model, begun = self.model, time.perf_counter()
        for batch, pixels, token_ids in batches:
            rows = batch._replace(wait_seconds=time.perf_counter() - begun)
            with model.running():
                if pixels is not None:
                    rows = rows._replace(images={name: on_cpu(view(pixels)) for name, view in self._views.items()})
                if token_ids is not None:
                    flat = on_cpu(model.encode_tokens(token_ids.flatten(0, 1).to(model.device)))
                    rows = rows._replace(text=flat.unflatten(*token_ids.shape[:2]), token_ids=token_ids.cpu())
            if self.on_progress is not None:
                self.on_progress(len(rows.keys))
            yield rows
            begun = time.perf_counter()


def joined(batches: Iterable[Encoded]) -> Encoded:
    """All rows of some batches as one."""
    every = [*batches]
    some = [rows for rows in every if rows.keys] or every[:1] or [Encoded([], [], [], {})]
    texts, ids = (
        [rows.text for rows in some if rows.text],
        [rows.token_ids for rows in some if rows.token_ids is not None],
    )
    return Encoded(
        keys=[key for rows in some for key in rows.keys],
        places=[place for rows in some for place in rows.places],
        sizes=[size for rows in some for size in rows.sizes],
        members={name: [member for rows in some for member in rows.members[name]] for name in some[0].members},
        bad=[bad for rows in every for bad in rows.bad],
        images={view: concatenate([rows.images[view] for rows in some]) for view in some[0].images},
        text=concatenate(texts, -2) if texts else None,
        token_ids=torch.cat(ids, 1) if ids else None,
        wait_seconds=sum(rows.wait_seconds for rows in every),
    )


def _samples_of_batch(batch: Batch) -> list[Sample]:
    members = ({name: column[row] for name, column in batch.members.items()} for row in range(len(batch.keys)))
    return [
        Sample(key, place, encoded_image(some), some)
        for key, place, some in zip(batch.keys, batch.rows.tolist(), members, strict=True)
    ]


def in_batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of at most `size`."""
    rest = iter(items)
    while some := [*islice(rest, size)]:
        yield some


def decoded_ahead(
    batches: Iterable[Sequence[Item]], decode: Callable[[Item], Decoded], num_threads: int
) -> Iterator[list[tuple[Item, Decoded]]]:
    """Batches of items, each with what `decode` returned for it in a thread, one batch ahead.

    `num_threads` 0 stands for the cores that this process may use.
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
