"""Find and open data sets in clip_benchmark's folder layout, and read labels, metadata and captions.

The layout: `classnames.txt` and `zeroshot_classification_templates.txt` with one entry per line, and, in the folder or
in its subfolder `test`, the shards `0.tar`, `1.tar`, … and their number in `nshards.txt`. A sample is an image with a
`.cls` (its class), a `.npy` (metadata, a vector of whole numbers) or a `.txt` (captions, one per line).
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import tarfile
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError

import numpy as np
import torch
from huggingface_hub import constants
from torch import Tensor

from prolip.data import DataError, StoreConfig
from prolip.data.build.shards import add_sample
from prolip.embeddings.embed import Embedded
from prolip.errors import UserError
from prolip.files import atomic_file, read_text
from prolip.pretrained.download import hub_data_set

CLASSNAMES, TEMPLATES, NUM_SHARDS = "classnames.txt", "zeroshot_classification_templates.txt", "nshards.txt"
_HUB = "hf://datasets/"
_TIMEOUT_S = 30
_PATTERNS = ["*.txt", "*.tar", "*.csv", "*.zip"]
_OTHER_SPLITS = ["train/*", "val/*", "valid/*"]


class FolderMissing(UserError):
    """None of the places has the folder."""


class TaskFolder(NamedTuple):
    """A data set in the published layout."""

    source: str
    """The path or address, for messages."""
    shards: tuple[str, ...]
    classnames: list[str]
    """Empty if there is no such file."""
    templates: list[str]
    """Prompt templates, with `{c}` for the class; empty if there is no such file."""
    fingerprint: str
    """Digest of the two lists and of the shards' names, sizes and modification times."""
    store: StoreConfig = StoreConfig()
    """How the shards are read."""


def find_folder(places: Sequence[str], names: Sequence[str], fetched: Path) -> Path:
    """Find the folder of a data set, download it if it is remote, and return its local path.

    Args:
        places: where to look, in order: folders that contain data sets (or a data set itself), `hf://datasets/OWNER`
            for the repositories of one owner on the hub, http(s) addresses.
        names: possible names of the folder, in order.
        fetched: where files from http(s) addresses are stored, in a subfolder per address. Files that are already
            there are not downloaded again.

    Raises:
        FolderMissing: no place has such a folder.
        UserError: the hub cannot be reached, or refuses access.
        OSError: a server does not answer, or a file is incomplete; the message names the address.
    """
    for place in places:
        for name in names:
            found = _find(place, name, fetched)
            if found is not None:
                return found
    raise FolderMissing(f"{' or '.join(names)} is not in {shown_places(places)}")


def shown_places(places: Sequence[str]) -> str:
    """The places of `find_folder`, for messages."""
    offline = constants.HF_HUB_OFFLINE and any(place.startswith(_HUB) for place in places)
    return ", ".join(places) + (" (HF_HUB_OFFLINE is set: of the hub, only the cache)" if offline else "")


def _find(place: str, name: str, fetched: Path) -> Path | None:
    if place.startswith(_HUB):
        return hub_data_set(f"{place.removeprefix(_HUB).strip('/')}/{name}", _PATTERNS, _OTHER_SPLITS)
    if place.startswith(("http://", "https://")):
        address = place.rstrip("/")
        return _from_server(f"{address}/{name}", fetched / hashlib.sha256(address.encode()).hexdigest()[:16] / name)
    folder = Path(place)
    if folder.name == name and folder.is_dir():
        return folder
    return folder / name if (folder / name).is_dir() else None


def _from_server(address: str, folder: Path) -> Path | None:
    """Download the lists, and as many shards as `nshards.txt` says; None if the address has no `nshards.txt`."""
    # First try the part that an earlier call found, so that the server is not asked, and parts are not mixed up.
    parts = sorted(("test", ""), key=lambda part: not (folder / part / NUM_SHARDS).exists())
    where = next((part for part in parts if _fetch(address, folder, part, NUM_SHARDS)), None)
    if where is None:
        return None
    for name in (CLASSNAMES, TEMPLATES):
        _fetch(address, folder, "", name)
    for number in range(_count(folder / where / NUM_SHARDS)):
        if not _fetch(address, folder, where, f"{number}.tar"):
            raise FileNotFoundError(f"{_join(address, where, f'{number}.tar')}: there is no such file")
    return folder


def _fetch(root: str, folder: Path, part: str, name: str) -> bool:
    """Download a file to the same place in the folder, unless it is there; False if the server does not have it."""
    address, path = _join(root, part, name), folder / part / name
    if path.exists():
        return True
    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT_S) as answer:
            length = answer.headers["Content-Length"]
            size = None if length is None else int(length)
            with atomic_file(path, size) as temporary:
                with temporary.open("wb") as file:
                    shutil.copyfileobj(answer, file)
                # A dropped connection looks like the end of the file.
                if size is not None and (found := temporary.stat().st_size) != size:
                    raise EOFError(f"the answer ended after {found} of {size} bytes")
    except (OSError, EOFError, HTTPException) as error:
        if isinstance(error, HTTPError):
            error.close()
            if error.code == 404:
                return False
        raise OSError(f"{address}: {error}") from error
    return True


def _join(*parts: str) -> str:
    return "/".join(filter(None, parts))


def open_folder(path: Path, store: StoreConfig | None = None) -> TaskFolder:
    """Open the data set in a local folder. `store` says how its shards are read; None for the defaults.

    Raises:
        UserError: shards are missing, or a list is damaged.
    """
    within = path / "test" if (path / "test").is_dir() else path
    counted = within / NUM_SHARDS
    if counted.is_file():
        shards = [within / f"{number}.tar" for number in range(_count(counted))]
        missing = [shard.name for shard in shards if not shard.is_file()]
        if missing:
            raise UserError(f"{counted} counts {len(shards)} shards: {', '.join(missing)} is missing")
    else:
        shards = sorted(within.glob("*.tar"))
    if not shards:
        raise UserError(f"{within} has no shard")
    lists = [read_lines(path / name) for name in (CLASSNAMES, TEMPLATES)]
    for number, template in enumerate(lists[1], start=1):
        if "{c}" not in template and "{}" not in template:
            raise UserError(f"{path / TEMPLATES}: line {number} has no {{c}} for the class: {template!r}")
    digest = digest_of((stamps(shards), lists))
    return TaskFolder(str(path), tuple(map(str, shards)), lists[0], lists[1], digest, store or StoreConfig())


def stamps(paths: Iterable[Path], below: Path | None = None) -> list[tuple[str, int, int]]:
    """Names, sizes and modification times of files. Results made from the files are stale when these differ.

    With `below`, a name is the file's path below that folder.
    """
    return [
        (str(path.relative_to(below)) if below else path.name, (status := path.stat()).st_size, status.st_mtime_ns)
        for path in paths
    ]


def digest_of(content: object) -> str:
    """Digest of plain values: 32 hexadecimal digits."""
    return hashlib.sha256(repr(content).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def pack_once(folder: Path, made: Path, digest: str, samples: Iterable[tuple[str, Mapping[str, bytes]]]) -> str:
    """Write samples, made of a folder's files, to a shard in `made`, unless it is there; returns the shard's path.

    A sample's key is its place and its name, if it has one, which messages show. `digest` must differ when a sample
    does.
    """
    path = made / f"{folder.resolve().name}-{digest[:16]}.tar"
    if not path.is_file():
        with atomic_file(path) as temporary, tarfile.open(temporary, "w") as archive:
            for place, (name, members) in enumerate(samples):
                # In a key, a dot would end the name.
                shown = re.sub(r"[^\w/ -]", "_", name)
                add_sample(archive, f"{place:07}/{shown}" if name else f"{place:07}", members)
    return str(path)


def _count(path: Path) -> int:
    text = read_text(path).strip()
    if not text.isdecimal():
        raise UserError(f"{path} is {text[:40]!r}: it must be the number of shards")
    return int(text)


def read_lines(path: Path) -> list[str]:
    """The lines without surrounding white space; [] if there is no file."""
    if not path.is_file():
        return []
    lines = [line.strip() for line in read_text(path).rstrip().splitlines()]
    if "" in lines:
        # A class's number is its line number: skipping a line would shift all the classes after it.
        raise UserError(f"{path}: line {lines.index('') + 1} is empty")
    return lines


# ---------------------------------------------------------------------------------------------------------------------
# Members of embedded images


def members_of(folder: TaskFolder, found: Embedded, extension: str) -> list[bytes]:
    """The member with this extension of every image of the folder, embedded with `keep` naming the extension.

    Raises:
        DataError: an image has no such member.
    """
    members: list[bytes] = []
    for key, member in zip(found.keys, found.members[extension], strict=True):
        if member is None:
            raise DataError(f"{folder.source}: sample {key} has no .{extension}")
        members.append(member)
    return members


def read_labels(folder: TaskFolder, found: Embedded) -> Tensor:
    """The class of every image, i64 [N], from its `.cls`.

    Raises:
        DataError: an image has no class, or one outside the class names.
    """
    labels = []
    for key, text in zip(found.keys, members_of(folder, found, "cls"), strict=True):
        if not text.strip().isdigit() or int(text) >= len(folder.classnames):
            raise DataError(
                f"{folder.source}: the class of sample {key} is {text[:40]!r}: "
                f"it must be from 0 to {len(folder.classnames) - 1}"
            )
        labels.append(int(text))
    return torch.tensor(labels)


def read_metadata(folder: TaskFolder, found: Embedded, num_columns: int = 1) -> Tensor:
    """The metadata of every image, i64 [N, M], from its `.npy`.

    The first `num_columns` are needed, and their numbers must not be negative.

    Raises:
        DataError: an image has no metadata, or not a vector of enough whole numbers.
    """
    rows = []
    for key, data in zip(found.keys, members_of(folder, found, "npy"), strict=True):
        try:
            # Not np.load, which also opens zip files of arrays.
            row = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise DataError(f"{folder.source}: the .npy of sample {key} cannot be read: {error}") from error
        if row.ndim != 1 or not np.issubdtype(row.dtype, np.integer):
            raise DataError(
                f"{folder.source}: the .npy of sample {key} is {row.dtype} {row.shape}: it must be a vector"
            )
        rows.append(torch.from_numpy(row.astype(np.int64)))
    if len({len(row) for row in rows}) > 1:
        raise DataError(f"{folder.source}: the .npy of samples are of different lengths")
    if len(rows[0]) < num_columns:
        raise DataError(f"{folder.source}: the .npy of samples has {len(rows[0])} columns: {num_columns} are needed")
    metadata = torch.stack(rows)
    below = (metadata[:, :num_columns] < 0).any(dim=1).nonzero()
    if len(below):
        raise DataError(
            f"{folder.source}: the .npy of sample {found.keys[int(below[0])]} has a number below 0 for a group"
        )
    return metadata


def read_captions(folder: TaskFolder, found: Embedded) -> list[list[str]]:
    """The captions of every image, at least one each, from its `.txt`.

    Raises:
        DataError: an image has no caption.
    """
    captions = []
    for key, text in zip(found.keys, members_of(folder, found, "txt"), strict=True):
        lines = [line.strip() for line in text.decode("utf-8", "replace").splitlines() if line.strip()]
        if not lines:
            raise DataError(f"{folder.source}: sample {key} has no caption")
        captions.append(lines)
    return captions
