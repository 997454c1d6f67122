"""Read the raw images and captions of shards, for people to look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from prolip.data import StoreConfig, expand_shards, without_secrets
from prolip.data.samples import EXTENSIONS, captions_at, encoded_image, read_members
from prolip.errors import UserError


@dataclass(frozen=True)
class Item:
    """A sample."""

    key: str
    """SHARD/KEY, without the shard's extension."""
    image: bytes
    captions: tuple[str, ...]
    """Distinct captions, in the order of `caption_keys`."""


def read_items(
    data: Sequence[str], caption_keys: Sequence[str], limit: int, store: StoreConfig | None = None
) -> list[Item]:
    """Read the first `limit` samples of the shards, in file order; samples without an image are skipped.

    Args:
        data: paths, URLs and patterns of shards, or folders of shards. If a folder has a test set, only that is read.
        caption_keys: `txt`, or dotted paths into a sample's JSON. From a list, the first text is used.
    """
    store = store or StoreConfig()
    patterns = []
    for source in data:
        folder, pattern = Path(source), source
        if source and folder.is_dir():
            pattern = str(folder / ("test-*.tar" if any(folder.glob("test-*.tar")) else "*.tar"))
        patterns.append(pattern)
    items = list(islice(_items(expand_shards(patterns, store), caption_keys, store), limit))
    if not items:
        raise UserError(f"shards: must have images (got {', '.join(map(without_secrets, data))})")
    return items


def _items(shards: Sequence[str], caption_keys: Sequence[str], store: StoreConfig) -> Iterator[Item]:
    for shard in shards:
        for key, members in read_members(shard, ("txt", "json", *EXTENSIONS), store):
            found = [captions_at(key, members, path)[:1] for path in caption_keys]
            captions = dict.fromkeys(caption for some in found for caption in some if caption)
            yield Item(f"{Path(without_secrets(shard)).stem}/{key}", encoded_image(members) or b"", tuple(captions))
