"""Pictures of shards as a model wants them: from our loader, or where it cannot give them from a model's own transform.

B batch, H/W pixels.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, islice
from typing import Any, NamedTuple

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from prolip.data import BatchLoader, DataError, LoaderConfig, expand_shards
from prolip.device import device_batches
from prolip.eval.model import Preprocess

MAX_BAD_FRACTION = 0.01
"""Share of unreadable pictures past which a set counts as damaged."""
EXTENSIONS = ("jpg", "png", "jpeg", "webp", "gif", "bmp")
"""Of pictures; of several of one sample the one that stands first here is taken, as the loader takes it."""


class PictureBatch(NamedTuple):
    """Pictures on a device."""

    images: Tensor
    """f32 [B, 3, H, W], normalised."""
    keys: list[str]
    json: list[str] | None
    """The samples' json as text, `null` where there is none; None unless it was asked for."""


class Sample(NamedTuple):
    """The members of a sample of a shard."""

    key: str
    members: dict[str, bytes]
    """By extension, in lower case."""


def picture_batches(
    preprocess: Preprocess, shards: Sequence[str], device: torch.device, batch_size: int, *, keep_json: bool = False
) -> Iterator[PictureBatch]:
    """All pictures of the shards in their order; unreadable ones are left out.

    Raises:
        ValueError: the shards cannot be read with this preprocessing.
        DataError: a shard is no archive, or too many pictures cannot be read.
    """
    if preprocess.transform is not None:
        yield from _transformed(preprocess.transform, shards, device, batch_size, keep_json=keep_json)
        return
    loading = LoaderConfig(
        shards=tuple(shards),
        batch_size=batch_size,
        image_size=preprocess.size[0],
        augment=None,
        captions=(),
        mask=None,
        shuffle_window=0,
        last_batch="keep",
        keep_json=keep_json,
        max_bad_fraction=MAX_BAD_FRACTION,
    )
    with BatchLoader(loading) as loader:
        for batch in device_batches(loader, device, mean=preprocess.mean, std=preprocess.std):
            yield PictureBatch(batch.images, batch.keys, batch.json)
        stats = loader.stats()
    # A shard that breaks off counts as one bad sample, however many pictures went with it.
    if "archive" in stats.bad:
        raise DataError(f"{', '.join(shards)}: a shard is damaged: {'; '.join(stats.bad_samples)}")


def read_samples(
    shards: Sequence[str], wanted: Callable[[str], bool], keys: Collection[str] | None = None
) -> Iterator[Sample]:
    """The samples of local tar files in their order, with the members whose extension (in lower case) is wanted.

    Samples are grouped as webdataset groups them; members of other extensions are passed over unread, as are samples
    whose key is not among `keys`, where these are given. A sample without a wanted member is given, too.

    Raises:
        ValueError: a shard is not a local file.
        DataError: a shard is no tar file.
    """
    for shard in expand_shards(list(shards)):
        if "://" in shard or shard.startswith("pipe:"):
            raise ValueError(f"{shard} is not a local file, which this needs")
        try:
            with tarfile.open(shard) as archive:
                named = ((*split_member(member.name), member) for member in archive if member.isfile())
                for key, members in groupby(named, key=lambda entry: entry[0]):
                    if key and (keys is None or key in keys):
                        found = {extension: member for _, extension, member in members if wanted(extension)}
                        yield Sample(key, {ext: _bytes(archive, member) for ext, member in found.items()})
        except (tarfile.TarError, EOFError) as error:
            raise DataError(f"shard {shard}: {error}") from error


def split_member(name: str) -> tuple[str, str]:
    """Key and extension of a member: parted at the first dot of its last name; no key for what is no sample."""
    folder, slash, last = name.rpartition("/")
    stem, dot, extension = last.partition(".")
    described = name.split("/", maxsplit=1)[0]
    if not stem or not dot or (described.startswith("__") and described.endswith("__")):
        return "", ""
    return f"{folder}{slash}{stem}", extension.lower()


def _bytes(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None, "a plain file"
    return file.read()


def _transformed(
    transform: Callable[[Any], Tensor], shards: Sequence[str], device: torch.device, batch_size: int, *, keep_json: bool
) -> Iterator[PictureBatch]:
    def decode(sample: Sample) -> Tensor | None:
        kept = [extension for extension in EXTENSIONS if extension in sample.members]
        try:
            with Image.open(io.BytesIO(sample.members[kept[0]])) as picture:
                # First, as the loader does and torchvision's folders do: a palette's numbers cannot be resized.
                return transform(picture.convert("RGB"))
        except (IndexError, OSError, SyntaxError, UnidentifiedImageError):
            return None

    samples = read_samples(shards, lambda extension: extension in {*EXTENSIONS, "json"})
    tried = failed = 0
    with ThreadPoolExecutor() as pool:
        while some := list(islice(samples, batch_size)):
            pictures = list(pool.map(decode, some))
            kept = [(sample, picture) for sample, picture in zip(some, pictures, strict=True) if picture is not None]
            tried, failed = tried + len(some), failed + len(some) - len(kept)
            if kept:
                yield PictureBatch(
                    images=torch.stack([picture for _, picture in kept]).to(device),
                    keys=[sample.key for sample, _ in kept],
                    json=[s.members.get("json", b"null").decode() for s, _ in kept] if keep_json else None,
                )
    if failed > MAX_BAD_FRACTION * tried:
        raise DataError(f"{', '.join(shards)}: {failed} of {tried} pictures cannot be read")
