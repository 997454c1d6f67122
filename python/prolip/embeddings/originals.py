"""Fetch the image or caption behind a row of embeddings, by source and key. S side of an image in pixels."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path, PurePath
from typing import NamedTuple

import pyarrow.parquet as pq

from prolip.data import DataError, StoreConfig
from prolip.data.samples import EXTENSIONS, captions_at, encoded_image, file_name, read_members
from prolip.errors import UserError
from prolip.images.preprocess import Pixels, Preprocess
from prolip.store.file_contents import read_text

log = logging.getLogger(__name__)

Name = tuple[str, str]
"""Source and key of a row."""


class Original(NamedTuple):
    """The image and caption of a row; None if it could not be read, or was not requested."""

    image: Pixels | None
    caption: str | None
    file: str | None = None
    """The image's own file name, if `prolip data build` wrote it into the sample's json."""


def fetch(
    names: Iterable[Name],
    side: int | None,
    store: StoreConfig | None = None,
    caption_key: str = "txt",
    *,
    remote: bool = True,
) -> dict[Name, Original]:
    """Fetch the images, cut to squares, the captions and the file names of rows.

    If a source cannot be read, a warning is logged, and its rows are missing from the result.

    Args:
        side: side of the images in pixels; None for no images.
        caption_key: `txt`, or a dotted path into a sample's json. If it leads to several texts, all are returned.
        remote: whether to download remote shards; otherwise their rows are missing from the result.
    """
    by_source: dict[str, set[str]] = {}
    for source, key in names:
        if remote or Path(source).exists():
            by_source.setdefault(source, set()).add(key)
    found: dict[Name, Original] = {}
    for source, keys in by_source.items():
        path = Path(source)
        try:
            if path.is_dir():
                contents = {key: _of_file(path / below(path, key), side) for key in keys}
            elif path.suffix == ".parquet":
                contents = _of_import(path, keys, side)
            elif path.suffix == ".txt":
                lines = read_lines(path)
                contents = {key: Original(None, lines[int(key)]) for key in keys if 0 <= int(key) < len(lines)}
            else:
                contents = _of_shard(source, keys, side, store or StoreConfig(), caption_key)
        except (ValueError, DataError, OSError) as error:
            log.warning("%s: its images and captions cannot be shown: %s", source, error)
        else:
            found |= {(source, key): one for key, one in contents.items()}
    return found


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, including empty ones, so that a caption's number is its line number."""
    text = read_text(path)
    return text.removesuffix("\n").split("\n") if text else []


def below(folder: Path, key: str) -> PurePath:
    """A key of a folder as a path, which does not lead out of it."""
    path = PurePath(key)
    if path.is_absolute() or ".." in path.parts or "\0" in key or not path.name:
        raise UserError("key", f"must be a path below {folder}", key)
    return path


def _of_import(path: Path, keys: set[str], side: int | None) -> dict[str, Original]:
    """Rows of `prolip import`; a key may be the path of an image."""
    rows = pq.read_table(path, filters=[("key", "in", keys)]).to_pylist()
    return {row["key"]: Original(_square(Path(row["key"]), side), row.get("caption")) for row in rows}


def _of_file(path: Path, side: int | None) -> Original:
    caption = path.with_suffix(".txt")
    text = caption.read_text(encoding="utf-8-sig", errors="replace").strip() if caption.is_file() else None
    return Original(_square(path, side), text)


def _of_shard(
    shard: str, keys: set[str], side: int | None, store: StoreConfig, caption_key: str
) -> dict[str, Original]:
    found: dict[str, Original] = {}
    for key, members in read_members(shard, ("txt", "json", *(EXTENSIONS if side else ())), store):
        if key not in keys or key in found:  # if several samples of the shard have one key, the first is used
            continue
        caption, file = "", None
        with suppress(DataError):
            caption = " / ".join(captions_at(key, members, caption_key))
            file = file_name(key, members["json"])
        encoded = encoded_image(members)
        image = None if encoded is None else _square(encoded, side)
        found[key] = Original(image, caption or None, file)
        if len(found) == len(keys):
            break
    return found


def _square(image: bytes | Path, side: int | None) -> Pixels | None:
    if side is not None:
        with suppress(UserError, DataError):
            return Preprocess().thumbnail(image, side)
    return None
