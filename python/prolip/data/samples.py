"""Read raw samples from shards."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prolip import _core
from prolip.data import BatchLoader, DataError, LoaderConfig, NoSampleError, StoreConfig

CLASS_MEMBER = "cls"
EXTENSIONS = _core.IMAGE_EXTENSIONS
"""The first in this order is the sample's image."""


def encoded_image(members: Mapping[str, bytes | None]) -> bytes | None:
    """The sample's image; None if there is none."""
    return next((data for name in EXTENSIONS if (data := members.get(name)) is not None), None)


def read_members(shard: str, keep: Sequence[str], store: StoreConfig) -> Iterator[tuple[str, dict[str, bytes | None]]]:
    """Keys and members (by the extensions in `keep`) of the samples that have an image, in order."""
    config = LoaderConfig(
        shards=(shard,),
        batch_size=64,
        image_size=0,
        captions=(),
        shuffle_window=0,
        last_batch="keep",
        keep_members=tuple(dict.fromkeys(keep)),
        max_bad_fraction=1.0,
        store=store,
    )
    try:
        loader = BatchLoader(config)
    except NoSampleError:
        return
    with loader:
        for batch in loader:
            for place, key in enumerate(batch.keys):
                yield key, {extension: some[place] for extension, some in batch.members.items()}


def file_name(key: str, member: bytes | None) -> str | None:
    """The image's own, if `prolip data build` wrote it into the JSON."""
    try:
        names = [name for path in ("path", "image") for name in values_at(key, member, path)]
    except DataError:
        return None
    return next((name for name in names if name and isinstance(name, str)), None)


def captions_at(key: str, members: Mapping[str, bytes | None], path: str) -> list[str]:
    """Its txt, or all texts at a dotted path of its json, stripped."""
    if path != "txt":
        return [text.strip() for text in values_at(key, members["json"], path) if isinstance(text, str)]
    text = members["txt"]
    try:
        return [] if text is None else [text.decode("utf-8-sig").strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"must be UTF-8 ({error})", key=key, member="txt") from error


def label_at(key: str, members: Mapping[str, bytes | None], path: str) -> str | None:
    """Its `cls`, or the first text or whole number at a dotted path of its json."""
    if path == CLASS_MEMBER:
        return (members.get(path) or b"").decode("utf-8", "replace").strip() or None
    values = values_at(key, members["json"], path)
    return next((str(one) for one in values if isinstance(one, str | int) and not isinstance(one, bool)), None)


def values_at(key: str, member: bytes | None, path: str) -> list[Any]:
    """At a dotted path of the JSON, as in `CaptionSource.key`; none without a member.

    Half a surrogate pair becomes U+FFFD, as in the loader: no text may have one.

    Raises:
        DataError: the member is not JSON, or is nested too deep.
    """
    try:
        return _below(json.loads(b"null" if member is None else member), path.split("."))
    except (ValueError, RecursionError) as error:
        raise DataError(f"cannot be parsed ({error})", key=key, member="json") from error


def _below(value: Any, parts: Sequence[str]) -> list[Any]:
    if isinstance(value, list):
        if parts and parts[0].isascii() and parts[0].isdigit():
            value, parts = value[int(parts[0]) :][:1], parts[1:]
        elif parts and parts[0] == "*":
            parts = parts[1:]
        return [inner for element in value for inner in _below(element, parts)]
    if not parts:
        return [
            value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(value, str) else value
        ]
    return _below(value[parts[0]], parts[1:]) if isinstance(value, dict) and parts[0] in value else []
