"""Data sets that are published as a table and a zip file of pictures: Flickr, COCO and WinoGAViL on the hub.

The pictures that the table names are put into a shard, once, so that they are read as all others are.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from prolip.eval.csv_rows import read_csv
from prolip.files import whole_file
from prolip.suites.folders import TaskFolder, stamps


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
        ValueError: a column or a picture is missing, or a file is damaged.
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
        ValueError: a column or a picture is missing, a file is damaged, or a task has no right answer.
    """
    rows = _rows(folder, ("cue", "candidates", "associations"))
    candidates = [_list(row["candidates"]) for row in rows]
    places = {name: place for place, name in enumerate(dict.fromkeys(name for some in candidates for name in some))}
    tasks = []
    for row, some in zip(rows, candidates, strict=True):
        right = set(_list(row["associations"]))
        if right.isdisjoint(some):
            raise ValueError(f"{folder}: the associations of {row['cue']!r} are not among its candidates")
        tasks.append(Association(row["cue"], [places[name] for name in some], [name in right for name in some]))
    return _shard(folder, made, list(places), None), tasks


def open_pictures(folder: Path, made: Path, names: Sequence[str]) -> TaskFolder:
    """Pictures that the folder's table names, in a shard, with their places as keys.

    Args:
        folder: with one table and the pictures, in a zip file or beside it.
        made: folder of the shard that is made.
        names: of the pictures.

    Raises:
        ValueError: a picture is missing, or a file is damaged.
    """
    return _shard(folder, made, names, None)


def files_of(folder: Path) -> list[Path]:
    """The folder's tables, its zip files, and the pictures that lie in it or below it."""
    return [*sorted(folder.glob("*.csv")), *sorted(folder.glob("*.zip")), *_loose(folder)]


def _table(folder: Path) -> Path | None:
    return next(iter(sorted(folder.glob("*.csv"))), None)


def _rows(folder: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    path = _table(folder)
    if path is None:
        raise ValueError(f"{folder} has no .csv")
    rows = read_csv(path)
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
    """A shard of the named pictures in their order, each with its text; one of the same files is taken."""
    digest = hashlib.sha256(repr((stamps(files_of(folder)), list(names), texts)).encode()).hexdigest()[:32]
    path = made / f"{folder.name}-{digest[:16]}.tar"
    if not path.is_file():
        with whole_file(path) as temporary, tarfile.open(temporary, "w") as archive:
            for place, (extension, data) in enumerate(_pictures(folder, names)):
                members = {extension: data} if texts is None else {extension: data, "txt": texts[place]}
                _add(archive, f"{place:07}", members)
    return TaskFolder(str(folder), (str(path),), [], [], digest)


def _add(archive: tarfile.TarFile, key: str, members: Mapping[str, bytes]) -> None:
    for extension, data in members.items():
        info = tarfile.TarInfo(f"{key}.{extension}")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))


def _pictures(folder: Path, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Extension and bytes of each named picture, from the zip files or the folder; a name may lack its extension."""
    files = {path.name: path for path in _loose(folder)}
    packed: dict[str, tuple[zipfile.ZipFile, str]] = {}
    with ExitStack() as opened:
        for path in sorted(folder.glob("*.zip")):
            try:
                archive = opened.enter_context(zipfile.ZipFile(path))
            except _DAMAGED as error:
                raise ValueError(f"{path}: {error}") from error
            packed |= {Path(name).name: (archive, name) for name in archive.namelist()}
        stems = {Path(name).stem: name for name in [*packed, *files] if Path(name).suffix.lower() in _SUFFIXES}
        for name in names:
            found = name if name in packed or name in files else stems.get(name)
            if found is None:
                raise ValueError(f"{folder} has no picture {name}")
            data = files[found].read_bytes() if found in files else _unpacked(*packed[found])
            yield Path(found).suffix.lower().removeprefix("."), data


def _unpacked(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except _DAMAGED as error:
        raise ValueError(f"{archive.filename}: {name}: {str(error) or type(error).__name__}") from error


def _loose(folder: Path) -> list[Path]:
    """Pictures that lie in the folder or below it."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)


_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)
"""What is raised for damaged zip files, and for those that are encrypted or packed in a way that Python lacks."""
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"}
