"""What the rows of embeddings are of: the pictures and captions themselves, fetched by source and key.

S side of a picture in pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prolip.data import DataError, StoreConfig, preprocess_image
from prolip.data.build.intake import UNREADABLE, load_picture
from prolip.data.samples import EXTENSIONS, at, read_record, read_samples
from prolip.embeddings.input_parts import read_lines

log = logging.getLogger(__name__)

Picture = NDArray[np.uint8]
"""[S, S, 3]."""
Name = tuple[str, str]
"""Source and key of a row."""


class Contents(NamedTuple):
    """What a row is of, as far as it could be read."""

    picture: Picture | None
    caption: str | None


def fetch(
    names: Iterable[Name], side: int, store: StoreConfig | None = None, caption_key: str = "txt"
) -> dict[Name, Contents]:
    """Pictures, cut to squares of `side` pixels, and captions of rows by source and key.

    A shard is read up to the last sample that is asked for. Its captions are its `.txt`, or where `caption_key` leads
    in its json; of several texts, of which one was embedded, all are shown. A source that cannot be read any more is
    warned of, and what is of it is not among the answers.
    """
    by_source: dict[str, set[str]] = {}
    for source, key in names:
        by_source.setdefault(source, set()).add(key)
    found: dict[Name, Contents] = {}
    for source, keys in by_source.items():
        try:
            contents = _of_source(source, keys, side, store or StoreConfig(), caption_key)
        except (ValueError, DataError, OSError) as error:
            log.warning("%s: what was embedded from it cannot be shown: %s", source, error)
        else:
            found |= {(source, key): one for key, one in contents.items()}
    return found


def _of_source(source: str, keys: set[str], side: int, store: StoreConfig, caption_key: str) -> dict[str, Contents]:
    path = Path(source)
    if path.is_dir():
        return {key: _of_file(path / key, side) for key in keys}
    if path.suffix == ".txt":
        lines = read_lines(path)
        return {key: Contents(None, lines[int(key)]) for key in keys if int(key) < len(lines)}
    return _of_shard(source, keys, side, store, caption_key)


def _of_file(path: Path, side: int) -> Contents:
    caption = path.with_suffix(".txt")
    text = caption.read_text(encoding="utf-8-sig", errors="replace").strip() if caption.is_file() else None
    try:
        # A file of another format than the loader's becomes one of those first.
        data = path.read_bytes() if path.suffix.lower()[1:] in EXTENSIONS else load_picture(path, None).data
    except UNREADABLE:
        return Contents(None, text)
    return Contents(_square(data, side), text)


def _caption(key: str, member: bytes | None, path: str) -> str | None:
    if path == "txt":
        return None if member is None else member.decode(errors="replace").strip()
    try:
        texts = at(read_record(key, member), path)
    except DataError:
        return None
    return " / ".join(text.strip() for text in texts if isinstance(text, str)) or None


def _of_shard(shard: str, keys: set[str], side: int, store: StoreConfig, caption_key: str) -> dict[str, Contents]:
    beside = "txt" if caption_key == "txt" else "json"
    found: dict[str, Contents] = {}
    for sample in read_samples(shard, (beside,), store):
        # Of several samples with one key the first: keys are told apart by their shards alone.
        if sample.key in keys and sample.key not in found:
            caption = _caption(sample.key, sample.members[beside], caption_key)
            found[sample.key] = Contents(_square(sample.picture, side), caption)
            if len(found) == len(keys):
                break
    return found


def _square(data: bytes, side: int) -> Picture | None:
    try:
        return preprocess_image(data, side)
    except DataError:
        return None
