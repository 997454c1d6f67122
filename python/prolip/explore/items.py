"""Read the raw images and captions of shards, for people to look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from prolip.data import StoreConfig, expand_shards, without_secrets
from prolip.data.samples import Sample, read_record, read_samples, values_at
from prolip.errors import UserError


@dataclass(frozen=True)
class Item:
    """A sample."""

    key: str
    """SHARD/KEY, without the shard's extension."""
    image: bytes
    """The encoded image."""
    captions: tuple[str, ...]
    """Distinct captions, in the order of `caption_keys`."""


def read_items(
    data: Sequence[str], caption_keys: Sequence[str], limit: int, store: StoreConfig | None = None
) -> list[Item]:
    """Read the first `limit` samples of the shards, in file order; samples without an image are skipped.

    Args:
        data: paths, URLs and patterns of shards, or folders of shards. If a folder has a test set, only that is read.
        caption_keys: `txt`, or dotted paths into a sample's JSON. From a list, the first text is used.
        limit: largest number of samples.
        store: how remote shards are read.

    Raises:
        UserError: there is no shard, or there is no image in them.
        DataError: a shard or a sample's JSON cannot be read.
    """
    store = store or StoreConfig()
    shards = expand_shards([pattern for source in data for pattern in _patterns(source)], store)
    items: list[Item] = []
    for shard in shards:
        if len(items) < limit:
            items += islice(_items(shard, caption_keys, store), limit - len(items))
    if not items:
        raise UserError(f"shards is {', '.join(map(without_secrets, data))}: its shards have no image")
    return items


def _patterns(source: str) -> list[str]:
    folder = Path(source)
    if not (source and folder.is_dir()):
        return [source]
    for pattern in ("test-*.tar", "*.tar"):
        if any(folder.glob(pattern)):
            return [str(folder / pattern)]
    raise UserError(f"shards is {source}: the folder has no .tar file")


def _items(shard: str, caption_keys: Sequence[str], store: StoreConfig) -> Iterator[Item]:
    name = Path(without_secrets(shard)).stem
    for sample in read_samples(shard, ("txt", "json"), store):
        captions = dict.fromkeys(_captions(sample, caption_keys))
        yield Item(f"{name}/{sample.key}", sample.image, tuple(captions))


def _captions(sample: Sample, caption_keys: Sequence[str]) -> Iterator[str]:
    text, record = sample.members["txt"], read_record(sample.key, sample.members["json"])
    for path in caption_keys:
        found = [text.decode("utf-8", "replace")] if path == "txt" and text is not None else values_at(record, path)
        if found and isinstance(found[0], str) and found[0].strip():
            yield found[0].strip()
