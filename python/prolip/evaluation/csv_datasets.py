"""Read data sets published as a CSV table and images in a folder or zip file: Flickr, COCO, WinoGAViL, HierarCaps.

The images that a table names are written to a shard, once, so that they are read like any others.
"""

from __future__ import annotations

import ast
import csv
import json
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from prolip.data import StoreConfig
from prolip.errors import UserError
from prolip.evaluation.folders import TaskFolder, digest_of, open_folder, pack_once, stamps

csv.field_size_limit(2**24)


class Association(NamedTuple):
    """A task of WinoGAViL: which of some images go with a word."""

    cue: str
    """The word."""
    candidates: list[int]
    """Indices of the images in the shard."""
    right: list[bool]
    """Whether each candidate goes with the cue."""


def open_local(folder: Path, made: Path, store: StoreConfig | None = None) -> TaskFolder:
    """Open a folder of the published layout, or one with a table of captions and no shards (see `open_captions`).

    Raises:
        UserError: it is neither, or a file is missing or damaged.
    """
    shards = any(folder.glob("*.tar")) or (folder / "test").is_dir()
    return open_folder(folder, store) if shards or _table(folder) is None else open_captions(folder, made)


def open_captions(folder: Path, made: Path) -> TaskFolder:
    """Images with captions, from a table with columns `filename` and `raw` (a list of captions), as a shard in `made`.

    Raises:
        UserError: a column or an image is missing, or a file is damaged.
    """
    rows = _rows(folder, ("filename", "raw"))
    names = [row["filename"] for row in rows]
    texts = ["\n".join(" ".join(caption.split()) for caption in _list(row["raw"])) for row in rows]
    return _shard(folder, made, names, [text.encode() for text in texts])


def open_associations(folder: Path, made: Path) -> tuple[TaskFolder, list[Association]]:
    """WinoGAViL's images, as a shard in `made`, and tasks, from a table: `cue`, `candidates` and `associations`.

    A candidate is the name of an image without its extension.

    Raises:
        UserError: a column or an image is missing, a file is damaged, or a task has no right answer.
    """
    rows = _rows(folder, ("cue", "candidates", "associations"))
    candidates = [_list(row["candidates"]) for row in rows]
    places = {name: place for place, name in enumerate(dict.fromkeys(name for some in candidates for name in some))}
    tasks = []
    for row, some in zip(rows, candidates, strict=True):
        right = set(_list(row["associations"]))
        if right.isdisjoint(some):
            raise UserError(f"{folder}: the associations of {row['cue']!r} are not among its candidates")
        tasks.append(Association(row["cue"], [places[name] for name in some], [name in right for name in some]))
    return _shard(folder, made, list(places), None), tasks


def open_images(folder: Path, made: Path, names: Sequence[str]) -> TaskFolder:
    """The named images of a folder as a shard in `made`; their keys are their places in `names`.

    Raises:
        UserError: an image is missing, or a file is damaged.
    """
    return _shard(folder, made, names, None)


def read_levels(path: Path, levels: str, beside: str) -> tuple[list[list[str]], list[str]]:
    """Two columns of a table: hierarchies [N][L], whose levels are joined by " => ", general first; another column [N].

    HierarCaps has `captions` and `image_url`, HierarImgs `images` and `caption`.

    Raises:
        UserError: a column is missing, there is no row, or rows differ in their number of levels or have one.
    """
    rows = _read_csv(path)
    if not rows or not {levels, beside} <= rows[0].keys():
        raise UserError(f"{path} is not a table with columns {levels} and {beside}")
    found = [[level.strip() for level in row[levels].split("=>")] for row in rows]
    if len({len(some) for some in found}) != 1:
        raise UserError(f"{path}: rows differ in their number of levels")
    if len(found[0]) < 2:
        raise UserError(f"{path}: column {levels} has one level: it must have several, joined by ' => '")
    return found, [row[beside] for row in rows]


def files_of(folder: Path) -> list[Path]:
    """The folder's tables and zip files, and all images below it."""
    return [*sorted(folder.glob("*.csv")), *sorted(folder.glob("*.zip")), *_image_files(folder)]


# ---- Tables ---------------------------------------------------------------------------------------------------------


def _table(folder: Path) -> Path | None:
    return next(iter(sorted(folder.glob("*.csv"))), None)


def _rows(folder: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    path = _table(folder)
    if path is None:
        raise UserError(f"{folder} has no .csv")
    rows = _read_csv(path)
    missing = [column for column in columns if not rows or column not in rows[0]]
    if missing:
        raise UserError(f"{path} has no column {' and no column '.join(missing)}, or no row")
    return rows


def _read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a table by column name; a missing cell is empty."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file, restval=""))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: {error}") from error


def _list(text: str) -> list[str]:
    """A list of strings, written as JSON or as a Python literal."""
    try:
        found = json.loads(text)
    except ValueError:
        try:
            found = ast.literal_eval(text)
        except (ValueError, SyntaxError) as error:
            raise UserError(f"{text[:60]!r} is not a list of texts") from error
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise UserError(f"{text[:60]!r} is not a list of texts")
    return found


# ---- Images ---------------------------------------------------------------------------------------------------------


def _shard(folder: Path, made: Path, names: Sequence[str], texts: Sequence[bytes] | None) -> TaskFolder:
    """A shard of the named images in their order, each with its text; reused while the files are unchanged."""
    digest = digest_of((stamps(files_of(folder)), list(names), texts))
    samples = (
        ("", {extension: data} if texts is None else {extension: data, "txt": texts[place]})
        for place, (extension, data) in enumerate(_images(folder, names))
    )
    return TaskFolder(str(folder), (pack_once(folder, made, digest, samples),), [], [], digest)


class _Image(NamedTuple):
    """An image file of a data set."""

    path: str
    """Below the folder, or within the zip file."""
    archive: zipfile.ZipFile | None
    """None for a file in the folder."""

    def __str__(self) -> str:
        return self.path if self.archive is None else f"{self.path} in {Path(str(self.archive.filename)).name}"


def _images(folder: Path, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Extension and bytes of each named image, from the folder or zip files.

    A name is a path, the name of a file, or that without its extension.
    """
    files = [_Image(str(path.relative_to(folder)), None) for path in _image_files(folder)]
    packed: list[_Image] = []
    with ExitStack() as opened:
        for path in sorted(folder.glob("*.zip")):
            try:
                archive = opened.enter_context(zipfile.ZipFile(path))
            except _DAMAGED as error:
                raise UserError(f"{path}: {error}") from error
            packed += [_Image(name, archive) for name in dict.fromkeys(archive.namelist())]
        # A file goes before one in a zip file, from which it may have been unpacked.
        indices = [
            *(_by(_path, files), _by(_name, files), _by(_path, packed), _by(_name, packed)),
            *(_by(_stem, files), _by(_stem, packed)),
        ]
        for name in names:
            found = next((some[name] for some in indices if name in some), [])
            if not found:
                raise UserError(f"{folder} has no image {name}")
            if len(found) > 1:
                raise UserError(f"{folder} has more than one image {name}: {found[0]} and {found[1]}")
            image = found[0]
            data = (folder / image.path).read_bytes() if image.archive is None else _unpack(image.archive, image.path)
            yield Path(image.path).suffix.lower().removeprefix("."), data


def _by(part: Callable[[str], str | None], images: Iterable[_Image]) -> dict[str, list[_Image]]:
    """The images by a part of their paths."""
    index: dict[str, list[_Image]] = {}
    for image in images:
        if (key := part(image.path)) is not None:
            index.setdefault(key, []).append(image)
    return index


def _path(path: str) -> str:
    return path


def _name(path: str) -> str:
    return Path(path).name


def _stem(path: str) -> str | None:
    """The file's name without its extension; None if it is not an image's."""
    return Path(path).stem if Path(path).suffix.lower() in _SUFFIXES else None


def _unpack(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except _DAMAGED as error:
        raise UserError(f"{archive.filename}: {name}: {str(error) or type(error).__name__}") from error


def _image_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)


_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)
"""Raised by damaged zip files, and by those that are encrypted or compressed in a way that Python does not support."""
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"}
