"""`Encoder`: takes samples of any source, and yields rows of Gaussians.

    shards ---- the loader's threads ----> pixels, token ids --+
                                                               +--> the network --> `Encoded` --> a sink
    files, lists, columns ---- a pool of threads --------------+

The pool also prepares the samples of shards if captions have no tokenizer of ours. Both work ahead of the network.
B batch, C caption slots, L tokens, H/W pixels, D dimensions.
"""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from prolip.data import (
    Batch,
    BatchLoader,
    CaptionConfig,
    CaptionSource,
    DataError,
    LoaderConfig,
    Members,
    NativeConfig,
    StoreConfig,
    without_secrets,
)
from prolip.data.device import device_batches
from prolip.data.samples import EXTENSIONS, captions_at, encoded_image
from prolip.data.tokenizer import Tokenizer
from prolip.distributed import usable_cores
from prolip.errors import UserError, check
from prolip.gaussian import Gaussian, concatenate
from prolip.images.files import find_images
from prolip.images.preprocess import KINDS, AnyImage, Preprocess
from prolip.images.tensors import Patches
from prolip.models import ProLIP
from prolip.models.config import Precision
from prolip.models.precision import autocast

MAX_BAD_FRACTION = 0.01
"""Share of unreadable images above which a set counts as damaged."""
View = Callable[[Tensor | Patches], Gaussian]
"""From normalised images on the network's device, f32 [B, 3, H, W] or patches, to Gaussians [B, D]."""
Item = TypeVar("Item")
Decoded = TypeVar("Decoded")


Images = AnyImage | Iterable[AnyImage]
"""One image, or several. A text may also name a folder of images, or shards as in `LoaderConfig.shards`."""
_SHARDS = re.compile(r"\.(tar(\.\w+)?|tgz|txt)(\?.*)?$|^(@|pipe:)")


class Sample(NamedTuple):
    """A sample that is not decoded yet."""

    key: str
    place: int
    """From 0."""
    image: Any
    """`AnyImage`; anything else is an error of this sample."""
    members: Mapping[str, bytes | None] = MappingProxyType({})
    """Its captions (txt, json), and members to keep."""
    name: str | None = None
    """The image's name in errors; None for its path."""


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
    """Width and height in the images' files; 0 if unknown."""
    members: Members
    """B per extension."""
    bad: Sequence[Bad] = ()
    """Left out by the pool. Those that the loader left out are in its statistics."""
    images: Mapping[str, Gaussian] = MappingProxyType({})
    """[B, D] by view; empty if B is 0."""
    text: Gaussian | None = None
    """[C, B, D]; None without captions."""
    token_ids: Tensor | None = None
    """i64 [C, B, L]; None without captions."""
    wait_seconds: float = 0.0
    """How long the network waited for the batch."""

    @property
    def gaussian(self) -> Gaussian:
        """The images as the network encodes them, [B, D]."""
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
    """A network with its preprocessing and tokenizer, and what to make of each sample."""

    network: nn.Module = field(repr=False)
    """A `ProLIP`, a model of open_clip, or an `AdaptedNetwork` on one of these; in fp32, on `device`."""
    device: torch.device
    encode_pixels: View = field(repr=False)
    """With means of unit norm, and gradients."""
    encode_tokens: Callable[[Tensor], Gaussian] = field(repr=False)
    """From ids [B, L] on `device` to Gaussians [B, D]: means of unit norm, with gradients."""
    preprocess: Preprocess
    tokenizer: Tokenizer | Callable[[list[str]], Tensor] | UserError = field(repr=False)
    """One of ours, one of open_clip, or why there is none."""
    precision: Precision = "fp32"
    """Precision of the towers; heads and results are always fp32."""
    views: Mapping[str, View] | None = None
    """Ways to encode the images; None for `image` alone, the network's own. Empty for captions alone."""
    caption_keys: tuple[str, ...] = ()
    """C places of captions: `txt`, or a dotted path into a sample's json, whose first text is used."""
    keep: tuple[str, ...] = ()
    """Extensions of members to keep."""
    batch_size: int = 128
    """Maximum samples per forward pass."""
    threads: int = 0
    """Threads that decode; 0 for this process's share of the cores."""
    on_progress: Callable[[int], object] | None = None
    """Called with the number of samples of each batch."""

    @classmethod
    def of_prolip(
        cls,
        network: ProLIP,
        tokenizer: Tokenizer | UserError,
        device: torch.device,
        precision: Precision = "fp32",
    ) -> Encoder:
        """Wrap a ProLIP network, and move it to `device`.

        Raises:
            UserError: the tokenizer has more tokens than the network's table.
        """
        rows = network.config.text.vocab_size
        if isinstance(tokenizer, Tokenizer) and tokenizer.vocab_size > rows:
            raise UserError("tokenizer", f"must have at most the model's {rows} tokens", tokenizer.vocab_size)
        network = network.to(device)
        return cls(
            network=network,
            device=device,
            encode_pixels=network.encode_image,
            encode_tokens=network.encode_text,
            preprocess=Preprocess.of_config(network.config),
            tokenizer=tokenizer,
            precision=precision,
        )

    def tokenize(self, texts: str | Sequence[str]) -> Tensor:
        """Turn captions into ids, i64 [N, L] on the CPU.

        Raises:
            UserError: there is none, one is not a string, or the network's tokenizer is unknown.
        """
        captions = as_captions(texts)
        if isinstance(self.tokenizer, UserError):
            raise self.tokenizer
        if isinstance(self.tokenizer, Tokenizer):
            return torch.from_numpy(self.tokenizer.encode(captions)).long()
        return self.tokenizer(captions).long()

    def require_tokenizer(self) -> Tokenizer:
        """The tokenizer, if it is ours; else a UserError."""
        if isinstance(self.tokenizer, UserError):
            raise self.tokenizer
        if not isinstance(self.tokenizer, Tokenizer):
            raise UserError("tokenizer", "must be ours", "one of open_clip")
        return self.tokenizer

    @contextmanager
    def running(self) -> Iterator[None]:
        """Evaluation mode in the network's precision, without gradients; afterwards the mode of before.

        Not torch's inference mode, whose tensors cannot be used to train a probe.
        """
        training = self.network.training
        self.network.eval()
        try:
            with torch.no_grad(), autocast(self.precision, self.device):
                yield
        finally:
            self.network.train(training)

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
        preprocess = self.preprocess
        if self.caption_keys and not isinstance(self.tokenizer, Tokenizer | UserError):
            texts = ("txt" if key == "txt" else "json" for key in self.caption_keys)
            return BatchLoader(replace(config, keep_members=tuple(dict.fromkeys((*self.keep, *EXTENSIONS, *texts)))))
        config = replace(config, image_size=preprocess.sides, fit=preprocess.fit)
        if preprocess.is_native:
            native = NativeConfig(patch_size=preprocess.patch_size)
            native = native.of_one_length(preprocess.image_seq_len, self.batch_size)
            config = replace(config, native=native)
        if self.caption_keys:
            slots = tuple(CaptionConfig(sources=(CaptionSource(key=key),)) for key in self.caption_keys)
            config = replace(config, captions=slots, tokenizer=self.require_tokenizer().config)
        return BatchLoader(config)

    def of_loader(self, loader: BatchLoader) -> Iterator[Encoded]:
        """The rows of a loader; its threads begin at once."""
        if not loader.config.image_size:
            return self.of_samples(map(_samples_of_batch, loader))
        device, preprocess = self.device, self.preprocess
        via = device if device.type in {"cpu", "cuda"} else torch.device("cpu")
        batches = device_batches(loader, via, mean=preprocess.mean, std=preprocess.std)
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
        """The rows of captions, whose keys are their places, counted from `first`."""
        numbered = in_batches(enumerate(captions, first), self.batch_size)
        return self._encoded(
            _Prepared(
                Encoded([str(place) for place, _ in some], [place for place, _ in some], [(0, 0)] * len(some), {}),
                None,
                self.tokenize([caption for _, caption in some])[None],
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
        # To the loader a truncated shard is one bad sample, however many are lost.
        if "archive" in stats.bad:
            raise DataError(f"a shard is damaged: {'; '.join(map(str, stats.bad_samples))}", shown)
        if len(bad) > max_bad_fraction * stats.samples:
            first = f"{bad[0].key}: {bad[0].error}"
            raise DataError(f"{len(bad)} of {stats.samples} images are unreadable: {first}", shown)

    def embed_shards(
        self, shards: Sequence[str], *, store: StoreConfig | None = None, selection: str | None = None
    ) -> Encoded:
        """All rows of shards, in memory. Unreadable images are left out.

        Raises:
            UserError: there is no image.
            DataError: a shard is not an archive, or more than one image in a hundred is unreadable.
        """
        shards = [shards] if isinstance(shards, str) else shards
        rows = joined(self.of_shards(shards, store=store, selection=selection))
        check(rows.keys, "shards", "must have an image", ", ".join(map(without_secrets, shards)))
        return rows

    def embed_captions(self, captions: Sequence[str], batch_size: int = 512) -> Gaussian:
        """Captions, [M, D] on the CPU."""
        text = joined(replace(self, batch_size=batch_size).of_captions(captions)).text
        assert text is not None
        return text.flatten()

    def of_images(self, images: Images, store: StoreConfig | None = None) -> Iterator[Encoded]:
        """The rows of images of any kind.

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
            return _Ready(*self.preprocess.decode(sample.image, sample.name), captions)
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
        ids = [self.tokenize(slot) for slot in zip(*(ready.captions for _, ready in good), strict=True)]
        images = self.preprocess.batch(pixels, self.device) if pixels else None
        return _Prepared(rows, images, torch.stack(ids) if ids else None)

    # ---- The network ----

    @property
    def _views(self) -> Mapping[str, View]:
        return {"image": self.encode_pixels} if self.views is None else self.views

    def _encoded(self, batches: Iterable[_Prepared]) -> Iterator[Encoded]:
        begun = time.perf_counter()
        for batch, pixels, token_ids in batches:
            rows = batch._replace(wait_seconds=time.perf_counter() - begun)
            with self.running():
                if pixels is not None:
                    rows = rows._replace(images={name: on_cpu(view(pixels)) for name, view in self._views.items()})
                if token_ids is not None:
                    flat = on_cpu(self.encode_tokens(token_ids.flatten(0, 1).to(self.device)))
                    rows = rows._replace(text=flat.unflatten(*token_ids.shape[:2]), token_ids=token_ids.cpu())
            if self.on_progress is not None:
                self.on_progress(len(rows.keys))
            yield rows
            begun = time.perf_counter()


def on_cpu(gaussian: Gaussian) -> Gaussian:
    """On the CPU in float32."""
    return Gaussian(gaussian.mean.float().cpu(), gaussian.log_var.float().cpu())


def as_captions(texts: str | Sequence[str]) -> list[str]:
    """The captions as a list; a UserError if there is none, or one is not a string."""
    captions = [texts] if isinstance(texts, str) else [*texts]
    check(captions, "texts", "there must be at least one")
    for place, caption in enumerate(captions):
        if not isinstance(caption, str):
            raise UserError(f"texts[{place}]", "must be a text", f"a {type(caption).__name__}")
    return captions


def joined(batches: Iterable[Encoded]) -> Encoded:
    """All rows as one."""
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


# ---- Samples --------------------------------------------------------------------------------------------------------


def samples_of(images: Images) -> Iterator[Sample | str]:
    """Yield single images, a folder's in the order of their paths, and the names of shards."""
    several = [cast(AnyImage, images)] if _is_one(images) else images
    if not isinstance(several, Iterable) or hasattr(several, "read"):  # the items of an open file are lines
        raise UserError("images", f"{KINDS}, or a list of them", f"a {type(images).__name__}")
    for place, image in enumerate(several):
        name = f"images[{place}]"
        if isinstance(image, str | os.PathLike):
            yield from _named(os.fspath(image), place, name)
        elif isinstance(image, np.ndarray | Tensor) and image.ndim == 4:
            yield from (Sample(name, row, part, name=f"{name}[{row}]") for row, part in enumerate(image))
        else:
            yield Sample(name, place, image, name=name)


def _named(text: str, place: int, name: str) -> Iterator[Sample | str]:
    if os.path.isdir(text):
        files = find_images(Path(text))
        check(files, name, f"the folder {text} has no image; shards are named as '{text}/*.tar'")
        yield from (Sample(str(path), row, path) for row, path in enumerate(files))
    elif _SHARDS.search(text):
        yield text
    else:
        yield Sample(text, place, text)


def count_images(images: Images) -> int | None:
    """For a progress bar; None if it is not known before they are read."""
    if _is_one(images) or not isinstance(images, Sequence):
        return None
    return None if any(isinstance(item, str | os.PathLike) and is_many(item) for item in images) else len(images)


def _is_one(images: Images) -> bool:
    if isinstance(images, np.ndarray | Tensor):
        return images.ndim <= 3
    return isinstance(images, (str, os.PathLike, bytes, bytearray, memoryview, Image.Image))


def is_many(name: str | os.PathLike[str]) -> bool:
    """Whether it names a folder, shards or an address, not an image."""
    text = os.fspath(name)
    return bool(_SHARDS.search(text)) or "://" in text or os.path.isdir(text)


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
    """Batches of items, each with what `decode` made of it in a thread, one batch ahead.

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
