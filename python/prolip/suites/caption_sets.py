"""Pictures with captions of any number: from the published layout, from shards with json, or from a table of names.

N pictures, M captions.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from prolip.data import DataError, StoreConfig, examine_shards, shown_shard
from prolip.data.samples import at, read_record
from prolip.embeddings.embed import Embedded
from prolip.suites.folders import TaskFolder, find_folder, members_of, open_folder, read_captions


class Captions(NamedTuple):
    """What belongs to pictures, in their order."""

    texts: list[list[str]]
    """The captions of each of N pictures, one or more."""
    image_ids: list[int] | None
    """The data set's own ids of the pictures; None where nobody asked for them."""
    caption_ids: list[list[int]] | None
    """Likewise of the captions."""


def name_sources(sources: Sequence[str]) -> dict[str, str]:
    """What data sets are called, by name: the last part of the path, or all of it where two would be called alike.

    Raises:
        ValueError: two addresses differ in nothing that may be shown.
    """
    distinct = list(dict.fromkeys(sources))
    shown = [shown_shard(source) for source in distinct]
    short = [Path(name).name for name in shown]
    names = {
        name if short.count(name) == 1 else whole: source
        for name, whole, source in zip(short, shown, distinct, strict=True)
    }
    if len(names) < len(distinct):
        raise ValueError(f"data has two addresses that would both be called {max(shown, key=shown.count)}")
    return names


_SHARD = re.compile(r"\.(tar|tgz)\b")
"""In an address: without it that is a folder's."""


def open_captioned(source: str, fetched: Path) -> TaskFolder:
    """A folder of the published layout, or shards by a path, an address or a pattern.

    Args:
        source: a folder's path, http(s) address or repository on the hub (`hf://datasets/OWNER/NAME`), whose files are
            fetched; or shards, which are read from where they are.
        fetched: where the files of folders at addresses are put.

    Raises:
        ValueError: there is no shard.
        DataError, OSError: a server does not have it, or does not answer.
    """
    if Path(source).is_dir():
        return open_folder(Path(source))
    if "://" in source and not _SHARD.search(source):
        place, _, name = source.rstrip("/").rpartition("/")
        return open_folder(find_folder((place,), (name,), fetched))
    found = examine_shards([source], StoreConfig())
    seen = [(Path(shown_shard(shard)).name, size, version) for shard, size, version in found]
    digest = hashlib.sha256(repr(seen).encode()).hexdigest()[:32]
    return TaskFolder(shown_shard(source), tuple(shard for shard, _, _ in found), [], [], digest)


def caption_members(caption_key: str = "txt", *id_keys: str | None) -> tuple[str, ...]:
    """Extensions of the members that `captions_of` reads for these keys."""
    in_json = caption_key != "txt" or any(key is not None for key in id_keys)
    return (*(("txt",) if caption_key == "txt" else ()), *(("json",) if in_json else ()))


def captions_of(
    folder: TaskFolder,
    found: Embedded,
    caption_key: str = "txt",
    image_id_key: str | None = None,
    caption_ids_key: str | None = None,
) -> Captions:
    """The captions of every embedded picture.

    Args:
        folder: where the pictures are from.
        found: the pictures, with the members that `caption_members` names.
        caption_key: `txt` (a caption a line), or a dotted path into the json, to a text or texts.
        image_id_key: dotted path of a picture's id, a whole number.
        caption_ids_key: dotted path of as many ids as there are captions.

    Raises:
        DataError: a picture has no caption, or no such id; the message names its key.
    """
    lines = read_captions(folder, found) if caption_key == "txt" else None
    if lines is not None and image_id_key is None and caption_ids_key is None:
        return Captions(lines, None, None)
    records = [read_record(*each) for each in zip(found.keys, members_of(folder, found, "json"), strict=True)]
    texts: list[list[str]] = []
    image_ids: list[int] = []
    caption_ids: list[list[int]] = []
    for place, (key, record) in enumerate(zip(found.keys, records, strict=True)):
        some = lines[place] if lines is not None else [str(text).strip() for text in at(record, caption_key)]
        if not some:
            raise DataError(f"{folder.source}: sample {key} has no caption at {caption_key}")
        texts.append(some)
        if image_id_key is not None:
            image_ids.append(_whole(folder, key, image_id_key, at(record, image_id_key), 1)[0])
        if caption_ids_key is not None:
            ids = _whole(folder, key, caption_ids_key, at(record, caption_ids_key), len(some))
            caption_ids.append(ids)
    return Captions(
        texts, None if image_id_key is None else image_ids, None if caption_ids_key is None else caption_ids
    )


def _whole(folder: TaskFolder, key: str, path: str, found: Sequence[Any], count: int) -> list[int]:
    """As many whole numbers as there must be."""
    numbers = [int(value) for value in found if isinstance(value, int | str) and str(value).lstrip("-").isdigit()]
    if len(numbers) != count or len(found) != count:
        raise DataError(
            f"{folder.source}: sample {key} has {list(found)!r} at {path}: it must be {count} whole numbers"
        )
    return numbers
