"""Fetch the image or caption behind a row of embeddings, by source and key.

S side of an image in pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prolip.data import DataError, StoreConfig, preprocess_image
from prolip.data.build.images import UNREADABLE, read_for_loader
from prolip.data.samples import EXTENSIONS, read_members, read_record, values_at
from prolip.embeddings.embed_inputs import read_lines
from prolip.errors import UserError

log = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]
"""[S, S, 3]."""
Name = tuple[str, str]
"""Source and key of a row."""


_FILE_FIELDS = ("path", "image")
"""The JSON fields in which `prolip data build folder` and `csv` write an image's file name."""


class Contents(NamedTuple):
    """The image and caption of a row; None if it could not be read, or was not requested."""

    image: Pixels | None
    caption: str | None
    file: str | None = None
    """The image's own file name, if it is not the key: the builders write it into the json of a sample."""


def fetch(
    names: Iterable[Name],
    side: int | None,
    store: StoreConfig | None = None,
    caption_key: str = "txt",
    *,
    remote: bool = True,
) -> dict[Name, Contents]:
    """Fetch the images, cut to squares, the captions and the file names of rows.

    A shard is read up to its last requested sample. If a source cannot be read, a warning is logged, and its rows are
    missing from the result.

    Args:
        names: source and key of each row.
        side: side of the images in pixels; None for no images.
        store: how remote shards are read.
        remote: whether to download remote shards; otherwise their rows are missing from the result.
        caption_key: `txt`, or a dotted path into a sample's json. If it leads to several texts, all are returned.
    """
    by_source: dict[str, set[str]] = {}
    for source, key in names:
        if remote or Path(source).exists():
            by_source.setdefault(source, set()).add(key)
    found: dict[Name, Contents] = {}
    for source, keys in by_source.items():
        try:
            contents = _from_source(source, keys, side, store or StoreConfig(), caption_key)
        except (UserError, DataError, OSError) as error:
            log.warning("%s: its images and captions cannot be shown: %s", source, error)
        else:
            found |= {(source, key): one for key, one in contents.items()}
    return found


def _from_source(
    source: str, keys: set[str], side: int | None, store: StoreConfig, caption_key: str
) -> dict[str, Contents]:
    path = Path(source)
    if path.is_dir():
        return {key: _from_file(path / key, side) for key in keys}
    if path.suffix == ".txt":
        lines = read_lines(path)
        return {key: Contents(None, lines[int(key)]) for key in keys if int(key) < len(lines)}
    return _from_shard(source, keys, side, store, caption_key)


def _from_file(path: Path, side: int | None) -> Contents:
    caption = path.with_suffix(".txt")
    text = caption.read_text(encoding="utf-8-sig", errors="replace").strip() if caption.is_file() else None
    image = None
    if side is not None:
        with suppress(*UNREADABLE):
            image = _square(read_for_loader(path).data, side)
    return Contents(image, text)


def _caption(key: str, member: bytes | None, path: str) -> str | None:
    if path == "txt":
        return None if member is None else member.decode(errors="replace").strip()
    try:
        texts = values_at(read_record(key, member), path)
    except DataError:
        return None
    return " / ".join(text.strip() for text in texts if isinstance(text, str)) or None


def _from_shard(
    shard: str, keys: set[str], side: int | None, store: StoreConfig, caption_key: str
) -> dict[str, Contents]:
    beside = "txt" if caption_key == "txt" else "json"
    found: dict[str, Contents] = {}
    for key, members in read_members(shard, ("txt", "json", *(EXTENSIONS if side else ())), store):
        # If several samples of the shard have one key, the first is used.
        if key in keys and key not in found:
            encoded = next((members[name] for name in EXTENSIONS if members.get(name) is not None), None)
            image = None if side is None or encoded is None else _square(encoded, side)
            found[key] = Contents(image, _caption(key, members[beside], caption_key), _file(key, members["json"]))
            if len(found) == len(keys):
                break
    return found


def _file(key: str, member: bytes | None) -> str | None:
    """Return the file name in a sample's json; None if there is none."""
    try:
        record = read_record(key, member)
    except DataError:
        return None
    names = [record.get(name) for name in _FILE_FIELDS] if isinstance(record, dict) else []
    return next((name for name in names if isinstance(name, str) and name), None)


def _square(data: bytes, side: int) -> Pixels | None:
    try:
        return preprocess_image(data, side)
    except DataError:
        return None
