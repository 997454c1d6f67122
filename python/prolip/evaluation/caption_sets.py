"""Open data sets of images with captions, and read their captions and ids.

N images, M captions.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from prolip.data import DataError, StoreConfig, examine_shards, without_secrets
from prolip.data.samples import read_record, values_at
from prolip.embeddings.embed import Embedded
from prolip.errors import UserError
from prolip.evaluation.csv_datasets import open_local
from prolip.evaluation.folders import TaskFolder, digest_of, find_folder, members_of, read_captions


class Captions(NamedTuple):
    """Captions and ids of images, in the order of the images."""

    texts: list[list[str]]
    """The captions of each image, at least one."""
    image_ids: list[int] | None
    """The data set's own id of each image; None if not requested."""
    caption_ids: list[list[int]] | None
    """The data set's own ids of each image's captions; None if not requested."""


def name_sources(sources: Sequence[str]) -> dict[str, str]:
    """Data sets by display name: the last part of the path, or the whole path where two would have the same name.

    Raises:
        UserError: two addresses differ only in secrets, which are not shown.
    """
    distinct = list(dict.fromkeys(sources))
    shown = [without_secrets(source) for source in distinct]
    short = [Path(name).name for name in shown]
    names = {
        name if short.count(name) == 1 else whole: source
        for name, whole, source in zip(short, shown, distinct, strict=True)
    }
    if len(names) < len(distinct):
        raise UserError(f"data has two addresses that would both be called {max(shown, key=shown.count)}")
    return names


_SHARD = re.compile(r"\.(tar|tgz)\b")
"""Tells the address of a shard from that of a folder."""
_NUMBER = re.compile(r"-?[0-9]+")
_PLAIN = re.compile(r"(?!@|pipe:)[^*?\[{]+")
"""A path, and not a pattern, a list of shards or a command."""


def is_missing(source: str) -> bool:
    """Whether a source is the name of a file or folder that does not exist; unknown, so False, for any other source."""
    return "://" not in source and _PLAIN.fullmatch(source) is not None and not Path(source).exists()


def open_captioned(source: str, fetched: Path, store: StoreConfig | None = None) -> TaskFolder:
    """Open a folder of the published layout or with a table of captions, or shards.

    Args:
        source: a folder's path, http(s) address or repository on the hub (`hf://datasets/OWNER/NAME`), whose files are
            downloaded; or a path, address or pattern of shards, which are read in place.
        fetched: where the files of remote folders, and shards made of a table's images, are stored.
        store: how shards are read; None for the defaults.

    Raises:
        UserError: there is no shard.
        DataError, OSError: a server does not have it, or does not answer.
    """
    if Path(source).is_dir():
        return open_local(Path(source), fetched, store)
    if "://" in source and not _SHARD.search(source):
        place, _, name = source.rstrip("/").rpartition("/")
        return open_local(find_folder((place,), (name,), fetched), fetched, store)
    if _PLAIN.fullmatch(source) and not _SHARD.search(source):
        if not Path(source).exists():
            raise UserError(f"data is {source}: there is no such folder, nor is it the name of a shard (.tar)")
        if Path(source).suffix != ".txt" and not tarfile.is_tarfile(source):
            raise UserError(f"data is {source}: it must be a folder, a shard (.tar) or a list of shards (.txt)")
    store = store or StoreConfig()
    found = examine_shards([source], store)
    seen = [(Path(without_secrets(shard)).name, size, version) for shard, size, version in found]
    return TaskFolder(without_secrets(source), tuple(shard for shard, _, _ in found), [], [], digest_of(seen), store)


def caption_members(caption_key: str = "txt", *id_keys: str | None) -> tuple[str, ...]:
    """Extensions of the members that `captions_of` needs for these keys."""
    in_json = caption_key != "txt" or any(key is not None for key in id_keys)
    return (*(("txt",) if caption_key == "txt" else ()), *(("json",) if in_json else ()))


def captions_of(
    folder: TaskFolder,
    found: Embedded,
    caption_key: str = "txt",
    image_id_key: str | None = None,
    caption_ids_key: str | None = None,
) -> Captions:
    """Read the captions, and ids if requested, of every embedded image of a folder.

    The keys are those of `RetrievalOptions`; the images must have the members that `caption_members` names.

    Raises:
        DataError: an image has no caption or no such id; the message names its key.
    """
    lines = read_captions(folder, found) if caption_key == "txt" else None
    if lines is not None and image_id_key is None and caption_ids_key is None:
        return Captions(lines, None, None)
    records = [read_record(*each) for each in zip(found.keys, members_of(folder, found, "json"), strict=True)]
    texts: list[list[str]] = []
    image_ids: list[int] = []
    caption_ids: list[list[int]] = []
    for place, (key, record) in enumerate(zip(found.keys, records, strict=True)):
        found_texts = lines[place] if lines is not None else values_at(record, caption_key)
        some = [text.strip() for text in found_texts if isinstance(text, str)]
        if not some or len(some) < len(found_texts):
            what = f"{found_texts!r}: captions must be texts" if found_texts else "no caption"
            raise DataError(f"{folder.source}: sample {key} has {what} at {caption_key}")
        texts.append(some)
        if image_id_key is not None:
            image_ids.append(whole_numbers(folder, key, image_id_key, values_at(record, image_id_key), 1)[0])
        if caption_ids_key is not None:
            ids = whole_numbers(folder, key, caption_ids_key, values_at(record, caption_ids_key), len(some))
            caption_ids.append(ids)
    return Captions(
        texts, None if image_id_key is None else image_ids, None if caption_ids_key is None else caption_ids
    )


def whole_numbers(folder: TaskFolder, key: str, path: str, found: Sequence[Any], count: int) -> list[int]:
    """Return the values as whole numbers; there must be `count` of them."""
    numbers = [int(value) for value in found if isinstance(value, int | str) and _NUMBER.fullmatch(str(value))]
    if len(numbers) != count or len(found) != count:
        wanted = "a whole number" if count == 1 else f"{count} whole numbers"
        raise DataError(f"{folder.source}: sample {key} has {list(found)!r} at {path}: it must be {wanted}")
    return numbers
