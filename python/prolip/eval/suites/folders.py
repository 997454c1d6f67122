"""Data sets in the layout in which they are published: found below folders or addresses, opened, joined with labels.

The layout is clip_benchmark's: `classnames.txt` and `zeroshot_classification_templates.txt` with a line each, and in
the folder or in its folder `test` the shards `0.tar`, `1.tar`, …, whose number stands in `nshards.txt`. A sample is a
picture with a `.cls` (its class), a `.npy` (metadata, a vector of whole numbers) or a `.txt` (captions, one a line).
"""

from __future__ import annotations

import hashlib
import io
import shutil
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError

import numpy as np
import torch
from torch import Tensor

from prolip.data import DataError
from prolip.eval.pictures import read_samples

CLASSNAMES, TEMPLATES, NUM_SHARDS = "classnames.txt", "zeroshot_classification_templates.txt", "nshards.txt"
_HUB = "hf://datasets/"
_TIMEOUT_S = 30
_PATTERNS = ["*.txt", "*.tar", "*.csv", "*.zip"]


class FolderMissing(ValueError):
    """No place has the folder."""


class TaskFolder(NamedTuple):
    """A data set of the published layout."""

    path: Path
    shards: tuple[str, ...]
    classnames: list[str]
    """Empty where there is no such file."""
    templates: list[str]
    """Likewise; `{c}` stands for the class."""
    fingerprint: str
    """Of the shards' names and sizes and of the two lists."""


def find_folder(places: Sequence[str], names: Sequence[str], fetched: Path) -> Path:
    """The local folder of a data set: the first of the names that one of the places has.

    Args:
        places: local folders of such folders (or such a folder itself), `hf://datasets/OWNER` for the repositories of
            one owner on the hub, http(s) addresses.
        names: what the folder may be called.
        fetched: where files of http(s) addresses are put; those that are there are not fetched again.

    Raises:
        FolderMissing: no place has one of them.
        OSError: a server does not answer.
    """
    for place in places:
        for name in names:
            found = _find(place, name, fetched)
            if found is not None:
                return found
    raise FolderMissing(f"{' or '.join(names)} is not in {', '.join(places)}")


def _find(place: str, name: str, fetched: Path) -> Path | None:
    if place.startswith(_HUB):
        return _from_hub(f"{place.removeprefix(_HUB).strip('/')}/{name}")
    if place.startswith(("http://", "https://")):
        return _from_server(f"{place.rstrip('/')}/{name}", fetched / name)
    folder = Path(place)
    if folder.name == name and folder.is_dir():
        return folder
    return folder / name if (folder / name).is_dir() else None


def _from_hub(repository: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return Path(snapshot_download(repository, repo_type="dataset", allow_patterns=_PATTERNS))
    except RepositoryNotFoundError:
        return None


def _from_server(address: str, folder: Path) -> Path | None:
    """The folder with the files of the address: the lists, and the shards that `nshards.txt` counts."""
    where = next((part for part in ("test/", "") if _fetch(f"{address}/{part}{NUM_SHARDS}", folder)), None)
    if where is None:
        return None
    shards = folder / NUM_SHARDS
    for name in (CLASSNAMES, TEMPLATES):
        _fetch(f"{address}/{name}", folder)
    for number in range(_count(shards)):
        if not _fetch(f"{address}/{where}{number}.tar", folder):
            raise FileNotFoundError(f"{address}/{where}{number}.tar: there is no such file")
    return folder


def _fetch(address: str, folder: Path) -> bool:
    """Whether the file is there, under its own name in the folder; False where the server has none."""
    path = folder / address.rpartition("/")[2]
    if path.exists():
        return True
    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT_S) as answer:
            folder.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f"{path.name}.tmp")
            with temporary.open("wb") as file:
                shutil.copyfileobj(answer, file)
            temporary.replace(path)
    except HTTPError as error:
        if error.code == 404:
            return False
        raise
    return True


def open_folder(path: Path) -> TaskFolder:
    """The data set in a folder.

    Raises:
        ValueError: shards are missing.
    """
    within = path / "test" if (path / "test").is_dir() else path
    counted = within / NUM_SHARDS
    if counted.is_file():
        shards = [within / f"{number}.tar" for number in range(_count(counted))]
        missing = [shard.name for shard in shards if not shard.is_file()]
        if missing:
            raise ValueError(f"{counted} counts {len(shards)} shards: {', '.join(missing)} is missing")
    else:
        shards = sorted(within.glob("*.tar"))
    if not shards:
        raise ValueError(f"{within} has no shard")
    lists = [_lines(path / name) for name in (CLASSNAMES, TEMPLATES)]
    seen = [(shard.name, shard.stat().st_size) for shard in shards]
    digest = hashlib.sha256(repr((seen, lists)).encode()).hexdigest()[:32]
    return TaskFolder(path, tuple(map(str, shards)), lists[0], lists[1], digest)


def _count(path: Path) -> int:
    text = path.read_text(encoding="utf-8").strip()
    if not text.isdecimal():
        raise ValueError(f"{path} is {text[:40]!r}: it must be the number of shards")
    return int(text)


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        return []
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


# ---------------------------------------------------------------------------------------------------------------------
# What belongs to pictures


def members_of(shards: Sequence[str], keys: Sequence[str], extension: str) -> list[bytes]:
    """The member of that extension of every embedded picture, in their order.

    Args:
        shards: the pictures' shards.
        keys: the embedded pictures' keys, in the order of the shards, from which unreadable pictures are missing.
        extension: of the member.

    Raises:
        DataError: a picture has no such member.
    """
    samples = read_samples(shards, lambda found: found == extension)
    members = []
    for key in keys:
        sample = next(sample for sample in samples if sample.key == key)
        if extension not in sample.members:
            raise DataError(f"{shards[0]}: sample {key} has no .{extension}")
        members.append(sample.members[extension])
    return members


def read_labels(folder: TaskFolder, keys: Sequence[str]) -> Tensor:
    """The class of every embedded picture, i64 [N].

    Raises:
        DataError: a picture has none, or one beyond the class names.
    """
    labels = []
    for key, text in zip(keys, members_of(folder.shards, keys, "cls"), strict=True):
        if not text.strip().isdigit() or int(text) >= len(folder.classnames):
            raise DataError(
                f"{folder.path}: the class of sample {key} is {text[:40]!r}: "
                f"it must be from 0 to {len(folder.classnames) - 1}"
            )
        labels.append(int(text))
    return torch.tensor(labels)


def read_metadata(folder: TaskFolder, keys: Sequence[str]) -> Tensor:
    """The metadata of every embedded picture, i64 [N, M].

    Raises:
        DataError: a picture has none, or not a vector of whole numbers.
    """
    rows = []
    for key, data in zip(keys, members_of(folder.shards, keys, "npy"), strict=True):
        try:
            row = np.load(io.BytesIO(data), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise DataError(f"{folder.path}: the .npy of sample {key} cannot be read: {error}") from error
        if row.ndim != 1 or not np.issubdtype(row.dtype, np.integer):
            raise DataError(f"{folder.path}: the .npy of sample {key} is {row.dtype} {row.shape}: it must be a vector")
        rows.append(torch.from_numpy(row.astype(np.int64)))
    if len({len(row) for row in rows}) > 1:
        raise DataError(f"{folder.path}: the .npy of samples are of different lengths")
    return torch.stack(rows)


def read_captions(folder: TaskFolder, keys: Sequence[str]) -> list[list[str]]:
    """The captions of every embedded picture, one or more each.

    Raises:
        DataError: a picture has none.
    """
    captions = []
    for key, text in zip(keys, members_of(folder.shards, keys, "txt"), strict=True):
        lines = [line.strip() for line in text.decode("utf-8", "replace").splitlines() if line.strip()]
        if not lines:
            raise DataError(f"{folder.path}: sample {key} has no caption")
        captions.append(lines)
    return captions
