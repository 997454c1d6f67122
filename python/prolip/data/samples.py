"""Samples of shards as they lie there: a picture's bytes, the members beside it, what a dotted path finds in json."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from prolip.data import BatchLoader, DataError, LoaderConfig, StoreConfig

EXTENSIONS = ("jpg", "png", "jpeg", "webp", "gif", "bmp")
"""Of pictures; of several of one sample the one that stands first here is taken, as the loader takes it."""


class Sample(NamedTuple):
    """A sample with a picture, which was not decoded."""

    key: str
    picture: bytes
    members: dict[str, bytes | None]
    """By extension those that were asked for, None where there is none."""


def read_samples(shard: str, keep: Sequence[str], store: StoreConfig) -> Iterator[Sample]:
    """The samples of a shard in its order, read as they are asked for; those without a picture are passed over.

    Args:
        shard: path or address.
        keep: extensions of members that are wanted beside the pictures.
        store: how shards are read that lie elsewhere.

    Raises:
        ValueError, DataError: the shard is not there, or is no archive.
    """
    config = LoaderConfig(
        shards=(shard,),
        batch_size=64,
        image_size=0,
        captions=(),
        shuffle_window=0,
        last_batch="keep",
        keep_members=(*EXTENSIONS, *keep),
        max_bad_fraction=1.0,
        store=store,
    )
    try:
        loader = BatchLoader(config)
    except ValueError as error:
        if not holds_no_sample(error):
            raise
        return
    with loader:
        for batch in loader:
            for place, key in enumerate(batch.keys):
                members = {extension: some[place] for extension, some in batch.members.items()}
                picture = next(data for data in map(members.__getitem__, EXTENSIONS) if data is not None)
                yield Sample(key, picture, {extension: members[extension] for extension in keep})


def holds_no_sample(error: ValueError) -> bool:
    """Whether that is the loader's error for a whole archive without a sample: of one shard of many that is none."""
    return str(error).endswith("the shards hold no sample")


def read_record(key: str, member: bytes | None) -> Any:
    """What a sample's json holds; None where it has none.

    Raises:
        DataError: it is no json; the message names the key.
    """
    if member is None:
        return None
    try:
        return json.loads(member)
    except ValueError as error:
        raise DataError(f"sample {key}: cannot parse its json: {error}") from error


def at(record: Any, path: str) -> list[Any]:
    """All that a dotted path leads to; a name behind a list is a name in each of its elements, as in the loader."""
    found = [record]
    for name in path.split("."):
        found = [item[name] for item in _spread(found) if isinstance(item, dict) and name in item]
    return _spread(found)


def _spread(items: Sequence[Any]) -> list[Any]:
    return [part for item in items for part in (item if isinstance(item, list) else [item])]
