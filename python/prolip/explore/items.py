"""The pictures and captions of some shards, as they are in the archives: what a person looks at."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from webdataset.tariterators import group_by_keys, tar_file_expander

from prolip.data import expand_shards

EXTENSIONS = ("jpg", "jpeg", "png", "webp", "gif", "bmp")
"""Of pictures, as the loader finds them."""


@dataclass(frozen=True)
class Item:
    """A sample of a shard."""

    key: str
    """SHARD/KEY, without the shard's ending."""
    picture: bytes
    """As it is in the archive."""
    captions: tuple[str, ...]
    """Distinct ones, in the order of the keys that they were found under."""


def read_items(data: Sequence[str], caption_keys: Sequence[str], limit: int) -> list[Item]:
    """The first `limit` samples of the shards, in the order of the files; samples without a picture are passed over.

    Args:
        data: patterns of shards, or folders of shards; of a folder with a test set only that.
        caption_keys: `txt`, or dotted paths into a sample's json, to a text or a list whose first text counts.
        limit: samples at most.

    Raises:
        ValueError: there is no shard, or no picture in them.
        OSError: a shard cannot be opened; they must be local files.
    """
    shards = expand_shards([pattern for source in data for pattern in _patterns(source)])
    items: list[Item] = []
    for shard in shards:
        with Path(shard).open("rb") as file:
            samples = group_by_keys(tar_file_expander([{"url": shard, "stream": file}]))
            items += islice(_items(Path(shard).stem, samples, caption_keys), limit - len(items))
    if not items:
        raise ValueError(f"data is {', '.join(data)}: no picture is in its shards")
    return items


def _patterns(source: str) -> list[str]:
    folder = Path(source)
    if not folder.is_dir():
        return [source]
    for pattern in ("test-*.tar", "*.tar"):
        if any(folder.glob(pattern)):
            return [str(folder / pattern)]
    raise ValueError(f"data is {source}: the folder holds no .tar")


def _items(shard: str, samples: Iterable[dict[str, Any]], caption_keys: Sequence[str]) -> Iterator[Item]:
    for sample in samples:
        picture = next((sample[name] for name in EXTENSIONS if name in sample), None)
        if picture is not None:
            yield Item(f"{shard}/{sample['__key__']}", picture, tuple(dict.fromkeys(_captions(sample, caption_keys))))


def _captions(sample: dict[str, Any], caption_keys: Sequence[str]) -> Iterator[str]:
    record = json.loads(sample["json"]) if "json" in sample else {}
    for key in caption_keys:
        found = sample[key].decode("utf-8", "replace") if key == "txt" and key in sample else _at(record, key)
        if isinstance(found, list) and found:
            found = found[0]
        if isinstance(found, str) and found.strip():
            yield found.strip()


def _at(record: Any, path: str) -> Any:
    for part in path.split("."):
        record = record.get(part) if isinstance(record, dict) else None
    return record
