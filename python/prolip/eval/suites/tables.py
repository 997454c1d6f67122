"""Data sets that are published as a table and a zip file of pictures: Flickr, COCO and WinoGAViL on the hub.

The pictures that the table names are put into a shard, once, so that they are read as all others are.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from prolip.eval.suites.folders import TaskFolder

csv.field_size_limit(2**24)


class Association(NamedTuple):
    """A task of WinoGAViL: which of some pictures go with a word."""

    cue: str
    candidates: list[int]
    """Places of the pictures in the order of the shard."""
    right: list[bool]
    """Whether each of them goes with the cue."""


def is_table(folder: Path) -> bool:
    """Whether the folder holds a table of this kind, and no shards."""
    return _table(folder) is not None and not any(folder.glob("*.tar")) and not (folder / "test").is_dir()


def open_captions(folder: Path, made: Path) -> TaskFolder:
    """Pictures with captions from a table with columns `filename` and `raw` (a list of captions).

    Args:
        folder: with the table and the pictures, in a zip file or beside it.
        made: folder of the shard that is made.

    Raises:
        ValueError: a column or a picture is missing.
    """
    rows = _rows(folder, ("filename", "raw"))
    names = [row["filename"] for row in rows]
    texts = ["\n".join(" ".join(caption.split()) for caption in _list(row["raw"])) for row in rows]
    return _shard(folder, made, names, [text.encode() for text in texts])


def open_associations(folder: Path, made: Path) -> tuple[TaskFolder, list[Association]]:
    """WinoGAViL's pictures and tasks from a table with columns `cue`, `candidates` and `associations`.

    A candidate is the name of a picture without its extension.

    Args:
        folder: with the table and the pictures, in a zip file or beside it.
        made: folder of the shard that is made.

    Raises:
        ValueError: a column or a picture is missing.
    """
    rows = _rows(folder, ("cue", "candidates", "associations"))
    candidates = [_list(row["candidates"]) for row in rows]
    places = {name: place for place, name in enumerate(dict.fromkeys(name for some in candidates for name in some))}
    tasks = []
    for row, some in zip(rows, candidates, strict=True):
        right = set(_list(row["associations"]))
        tasks.append(Association(row["cue"], [places[name] for name in some], [name in right for name in some]))
    return _shard(folder, made, list(places), None), tasks


def open_pictures(folder: Path, made: Path, names: Sequence[str]) -> TaskFolder:
    """Pictures that the folder's table names, in a shard, with their places as keys.

    Args:
        folder: with one table and the pictures, in a zip file or beside it.
        made: folder of the shard that is made.
        names: of the pictures.

    Raises:
        ValueError: a picture is missing.
    """
    return _shard(folder, made, names, None)


def _table(folder: Path) -> Path | None:
    return next(iter(sorted(folder.glob("*.csv"))), None)


def _rows(folder: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    path = _table(folder)
    if path is None:
        raise ValueError(f"{folder} has no .csv")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    missing = [column for column in columns if not rows or column not in rows[0]]
    if missing:
        raise ValueError(f"{path} has no column {' and no column '.join(missing)}, or no row")
    return rows


def _list(text: str) -> list[str]:
    """A list of texts as JSON or Python writes it."""
    try:
        found = json.loads(text)
    except ValueError:
        try:
            found = ast.literal_eval(text)
        except (ValueError, SyntaxError) as error:
            raise ValueError(f"{text[:60]!r} is no list of texts") from error
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise ValueError(f"{text[:60]!r} is no list of texts")
    return found


def _shard(folder: Path, made: Path, names: Sequence[str], texts: Sequence[bytes] | None) -> TaskFolder:
    """A shard of the named pictures in their order, each with its text; one that is there is taken."""
    sources = [_table(folder), *sorted(folder.glob("*.zip"))]
    seen = [(path.name, path.stat().st_size) for path in sources if path is not None]
    digest = hashlib.sha256(repr(seen).encode()).hexdigest()[:32]
    path = made / f"{folder.name}-{digest[:16]}.tar"
    if not path.is_file():
        made.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        with tarfile.open(temporary, "w") as archive:
            for place, (extension, data) in enumerate(_pictures(folder, names)):
                members = {extension: data} if texts is None else {extension: data, "txt": texts[place]}
                _add(archive, f"{place:07}", members)
        temporary.replace(path)
    return TaskFolder(folder, (str(path),), [], [], digest)


def _add(archive: tarfile.TarFile, key: str, members: Mapping[str, bytes]) -> None:
    for extension, data in members.items():
        info = tarfile.TarInfo(f"{key}.{extension}")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))


def _pictures(folder: Path, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Extension and bytes of each named picture, from the zip files or the folder; a name may lack its extension."""
    files = {path.name: path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES}
    packed: dict[str, tuple[zipfile.ZipFile, str]] = {}
    with ExitStack() as opened:
        for path in sorted(folder.glob("*.zip")):
            archive = opened.enter_context(zipfile.ZipFile(path))
            packed |= {Path(name).name: (archive, name) for name in archive.namelist()}
        stems = {Path(name).stem: name for name in [*packed, *files] if Path(name).suffix.lower() in _SUFFIXES}
        for name in names:
            found = name if name in packed or name in files else stems.get(name)
            if found is None:
                raise ValueError(f"{folder} has no picture {name}")
            data = files[found].read_bytes() if found in files else packed[found][0].read(packed[found][1])
            yield Path(found).suffix.lower().removeprefix("."), data


_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"}
