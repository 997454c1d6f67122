"""Open data sets of images with labels or captions, here and on servers, and embed them.

The published layout (clip_benchmark's) has `classnames.txt` and `zeroshot_classification_templates.txt`, one entry per
line. Shards `0.tar`, `1.tar`, … and their number, `nshards.txt`, are in the folder or its subfolder `test`. A sample is
an image with `.cls` (its class), `.npy` (M whole numbers of metadata) or `.txt` (captions, one per line). N images.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import re
import urllib.request
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import constants

from prolip.data import DataError, StoreConfig, examine_shards, without_secrets
from prolip.data.class_names import class_text
from prolip.datasets.imagenet_prompts import IMAGENET, imagenet_classnames, named_templates
from prolip.errors import UserError, check
from prolip.images.files import find_images
from prolip.inference.encoder import MAX_BAD_FRACTION, Encoded, Sample, View, in_batches, joined
from prolip.inference.model import Model
from prolip.metrics.config import DEFAULT_TEMPLATES
from prolip.metrics.prompts import fill_templates
from prolip.pretrained.download import hub_data_set
from prolip.store.file_contents import read_text
from prolip.store.folder import folder_of

_CLASSNAMES, _TEMPLATES, _NUM_SHARDS = "classnames.txt", "zeroshot_classification_templates.txt", "nshards.txt"
_HUB = "hf://datasets/"
_PATTERNS, _OTHER_SPLITS = ["*.txt", "*.tar", "*.csv", "*.zip"], ["train/*", "val/*", "valid/*"]
_TIMEOUT_S = 30
_SHARD = re.compile(r"\.(tar|tgz)\b")
_IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"}
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)
"""Raised by damaged, encrypted or unsupported zip files."""

csv.field_size_limit(2**24)


class FolderMissing(UserError):
    """None of the places has the folder."""

    def __init__(self, folder: str, places: str) -> None:
        super().__init__("data", f"{folder} is not in {places}")
        self.places = places


class DataSet(NamedTuple):
    """Images, in shards or not, with their class names and templates, if any."""

    source: str
    shards: tuple[str, ...]
    classnames: list[str]
    templates: list[str]
    """With `{c}` or `{}` for the class."""
    fingerprint: str
    """Digest of the lists and of the files' names, sizes and modification times."""
    store: StoreConfig = StoreConfig()
    samples: Callable[[], Iterator[Sample]] | None = None
    """The images that are not in shards; None if they are."""
    selection: str | None = None
    encoded: Callable[[Model], Encoded] | None = None
    """Its images and their members if this model has embedded them already."""


def open_dataset(source: str, store: StoreConfig | None = None, selection: str | None = None) -> DataSet:
    """Open shards, or a folder: in the published layout, with a table of captions, or a folder per class.

    Args:
        source: a folder's path, http(s) address (read in place) or repository (`hf://datasets/OWNER/NAME`, downloaded);
            or shards, by path, address or pattern.
        store: how shards are read; None for the defaults.
        selection: path of a selection of the shards' samples; None for all.
    """
    data = _open(source, store or StoreConfig())
    if selection is None:
        return data
    check(data.samples is None, "selection", "must be of shards", source)
    chosen, name = folder_of(selection)
    fingerprint = _digest((data.fingerprint, chosen.read(name)))
    return data._replace(selection=selection, fingerprint=fingerprint)


def _open(source: str, store: StoreConfig) -> DataSet:
    folder = locate(source)
    if folder is not None and "://" not in folder:
        return _open_folder(Path(folder), store)
    if folder is not None:
        part, count = _remote_shards(folder) or ("", 0)
        shards = [f"{part}/{number}.tar" for number in range(count)]
        lists = [_lines(name, _remote_text(f"{folder}/{name}") or "") for name in (_CLASSNAMES, _TEMPLATES)]
        return _of_shards(without_secrets(folder), shards, lists, store)
    if "://" in source and not _SHARD.search(source):
        place, _, name = without_secrets(source).rstrip("/").rpartition("/")
        raise FolderMissing(name, place)
    if is_path(source) and Path(source).suffix != ".txt" and not _SHARD.search(source):
        raise UserError("data", "must be a folder, a shard (.tar) or a list of shards (.txt)", source)
    return _of_shards(without_secrets(source), [source], [[], []], store)


def locate(source: str) -> str | None:
    """A folder's local path or address; the hub's are downloaded. None if there is none."""
    if source.startswith(_HUB):
        path = hub_data_set(source.removeprefix(_HUB).strip("/"), _PATTERNS, _OTHER_SPLITS)
        return None if path is None else str(path)
    if source.startswith(("http://", "https://")) and not _SHARD.search(source):
        address = source.rstrip("/")
        return address if _remote_shards(address) else None
    return source if Path(source).is_dir() else None


def find_folder(places: Sequence[str], names: Sequence[str]) -> str:
    """The first with one of the names, as from `locate`.

    Places are folders or addresses of folders that contain data sets, a data set itself, or `hf://datasets/OWNER`.
    """
    for place in places:
        for name in names:
            found = locate(place if Path(place).name == name else f"{place.rstrip('/')}/{name}")
            if found is not None:
                return found
    offline = constants.HF_HUB_OFFLINE and any(place.startswith(_HUB) for place in places)
    note = " (HF_HUB_OFFLINE is set: of the hub, only the cache)" if offline else ""
    raise FolderMissing(" or ".join(names), f"{', '.join(map(without_secrets, places))}{note}")


def open_classes(
    source: str,
    store: StoreConfig,
    templates: Sequence[str],
    classnames: Path | None = None,
    selection: str | None = None,
    opened: Callable[[str, StoreConfig, str | None], DataSet] = open_dataset,
) -> DataSet:
    """As `opened`, with these class names and templates, or its own, or `DEFAULT_TEMPLATES`."""
    data = opened(source, store, selection)
    names, templates = data.classnames, named_templates(templates)
    if classnames is not None:
        named = str(classnames) == IMAGENET
        names = imagenet_classnames() if named else _lines(str(classnames), read_text(classnames))
    check(names, "data", f"must have {_CLASSNAMES}, --classnames, or one folder of images per class", data.source)
    if data.classnames and len(names) != len(data.classnames):
        raise UserError(
            "classnames", f"must be one for each of {len(data.classnames)} classes of {data.source}", len(names)
        )
    if templates:
        fill_templates(templates, names)
    return data._replace(classnames=names, templates=templates or data.templates or list(DEFAULT_TEMPLATES))


def name_sources(sources: Sequence[str]) -> dict[str, str]:
    """By display name: the last part of the path, or all of it where names would be the same."""
    distinct = {without_secrets(source): source for source in sources}
    short = [Path(name).name for name in distinct]
    return {
        name if short.count(name) == 1 else whole: distinct[whole] for name, whole in zip(short, distinct, strict=True)
    }


def is_path(source: str) -> bool:
    """Whether it is no address, pattern, list of shards or command."""
    return "://" not in source and re.fullmatch(r"(?!@|pipe:)[^*?\[{]+", source) is not None


def _open_folder(folder: Path, store: StoreConfig) -> DataSet:
    within = folder / "test" if (folder / "test").is_dir() else folder
    number_file = within / _NUM_SHARDS
    names = (
        [f"{number}.tar" for number in range(_count(str(number_file), read_text(number_file)))]
        if number_file.is_file()
        else []
    )
    shards = [str(within / name) for name in names] or sorted(map(str, within.glob("*.tar")))
    if shards:
        paths = [folder / name for name in (_CLASSNAMES, _TEMPLATES)]
        lists = [_lines(str(path), read_text(path)) if path.is_file() else [] for path in paths]
        return _of_shards(str(folder), shards, lists, store)
    if any(folder.glob("*.csv")):
        rows = _table(folder, "filename", "raw")
        texts = ["\n".join(" ".join(caption.split()) for caption in _list(row["raw"])) for row in rows]
        return open_images(folder, [row["filename"] for row in rows], texts)
    return _open_class_folders(folder)


def _open_class_folders(folder: Path) -> DataSet:
    files = find_images(folder)
    check(files, "data", "must hold images, a table (.csv) or shards (.tar)", folder)
    paths = [path.relative_to(folder).parts for path in files]
    loose = [path for path, names in zip(files, paths, strict=True) if len(names) == 1]
    if loose:
        raise UserError("data", "each image must be in the folder of its class", loose[0])
    classes = sorted({names[0] for names in paths})

    def samples() -> Iterator[Sample]:
        for place, (path, names) in enumerate(zip(files, paths, strict=True)):
            yield Sample("/".join(names), place, path, {"cls": str(classes.index(names[0])).encode()})

    found = _of_samples(folder, files, None, samples)
    return found._replace(classnames=[class_text(name) for name in classes])


def _of_shards(source: str, shards: Sequence[str], lists: list[list[str]], store: StoreConfig) -> DataSet:
    found = examine_shards(list(shards), store)
    seen = [(Path(without_secrets(shard)).name, size, version) for shard, size, version in found]
    names, templates = lists
    shards = tuple(shard for shard, _, _ in found)
    return DataSet(source, shards, names, templates, _digest((seen, lists)), store)


def _remote_shards(address: str) -> tuple[str, int] | None:
    """The folder with the shards, and their number."""
    for part in (f"{address}/test", address):
        text = _remote_text(f"{part}/{_NUM_SHARDS}")
        if text is not None:
            return part, _count(f"{part}/{_NUM_SHARDS}", text)
    return None


def _remote_text(address: str) -> str | None:
    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT_S) as answer:
            return str(answer.read(), "utf-8-sig")
    except OSError as error:
        if getattr(error, "code", None) == 404:
            return None
        raise OSError(f"{without_secrets(address)}: {error}") from error


def _count(name: str, text: str) -> int:
    if not text.strip().isdecimal():
        raise UserError(name, "must be the number of shards", f"{text[:40]!r}")
    return int(text)


def _lines(name: str, text: str) -> list[str]:
    lines = [line.strip() for line in text.rstrip().splitlines()]
    if "" in lines:
        # A class's number is its line's, so no line can be skipped.
        raise UserError(name, "must have no empty line", f"line {lines.index('') + 1}")
    return lines


# ---- Tables and images ----------------------------------------------------------------------------------------------


class Association(NamedTuple):
    """A task of WinoGAViL: which of some images go with a word."""

    cue: str
    candidates: list[int]
    """Indices of the images."""
    right: list[bool]


def open_associations(folder: Path) -> tuple[DataSet, list[Association]]:
    """From a table of `cue`, `candidates` and `associations`."""
    places: dict[str, int] = {}
    tasks = []
    for row in _table(folder, "cue", "candidates", "associations"):
        names, right = _list(row["candidates"]), set(_list(row["associations"]))
        if right.isdisjoint(names):
            raise UserError(folder, "associations must be candidates", f"{row['cue']!r}")
        candidates = [places.setdefault(name, len(places)) for name in names]
        tasks.append(Association(row["cue"], candidates, [name in right for name in names]))
    return open_images(folder, list(places)), tasks


def open_images(folder: Path, names: Sequence[str], texts: Sequence[str] | None = None) -> DataSet:
    """Images, as files or in zip files; their keys are their places in `names`.

    A name is a path, a file's name, or that without its extension; `texts` become the images' `.txt`.
    """
    files = [*sorted(folder.glob("*.csv")), *sorted(folder.glob("*.zip")), *_image_files(folder)]
    images = find_named(folder, names)

    def samples() -> Iterator[Sample]:
        for place, (name, read) in enumerate(zip(names, images, strict=True)):
            members = {} if texts is None else {"txt": texts[place].encode()}
            yield Sample(str(place), place, read(), members, f"{folder}: {name}")

    return _of_samples(folder, files, (list(names), texts), samples)


def read_levels(path: Path, levels: str, beside: str) -> tuple[list[list[str]], list[str]]:
    """Two columns of a table: hierarchies [N][L], whose levels are joined by " => ", general first; another column [N].

    HierarCaps has `captions` and `image_url`, HierarImgs `images` and `caption`.

    Raises:
        UserError: a column is missing, or rows do not have the same number of levels, at least two.
    """
    rows = _read_csv(path, levels, beside)
    found = [[level.strip() for level in row[levels].split("=>")] for row in rows]
    check(
        len({len(some) for some in found}) == 1 and len(found[0]) >= 2,
        path,
        f"all rows must have the same number of {levels}, at least 2, joined by ' => '",
    )
    return found, [row[beside] for row in rows]


def _table(folder: Path, *columns: str) -> list[dict[str, str]]:
    path = min(folder.glob("*.csv"), default=None)
    if path is None:
        raise UserError(folder, "must have a table (.csv)")
    return _read_csv(path, *columns)


def _read_csv(path: Path, *columns: str) -> list[dict[str, str]]:
    """By column name; a missing cell is empty."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, restval=""))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(path, error) from error
    if not rows or not set(columns) <= rows[0].keys():
        raise UserError(path, f"must be a table with the columns {', '.join(columns)}")
    return rows


def _list(text: str) -> list[str]:
    """Written as a Python literal or as JSON."""
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        found = None
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise UserError("a cell of the table", "must be a list of texts", f"{text[:60]!r}")
    return found


def _image_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _IMAGES)


def find_named(folder: Path, names: Sequence[str]) -> list[Callable[[], bytes]]:
    """Functions that read them; files come before those of the same path in a zip file."""
    index: dict[str, dict[str, Callable[[], bytes]]] = defaultdict(dict)
    images = [(str(path.relative_to(folder)), path.read_bytes) for path in _image_files(folder)]
    for path in sorted(folder.glob("*.zip")):
        with _readable(path):
            archive = zipfile.ZipFile(path)
        images += [(name, partial(_unpacked, archive, name)) for name in archive.namelist()]
    for image, read in images:
        for key in (image, Path(image).name, Path(image).stem):
            index[key].setdefault(image, read)
    for name in names:
        if len(index[name]) != 1 and name not in index[name]:
            raise UserError(folder, f"must have one image {name}", len(index[name]))
    return [index[name].get(name) or next(iter(index[name].values())) for name in names]


def _unpacked(archive: zipfile.ZipFile, name: str) -> bytes:
    with _readable(archive.filename):
        return archive.read(name)


@contextmanager
def _readable(path: Path | str | None) -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        raise UserError(path, f"the zip file cannot be read: {error}") from error


def _of_samples(
    folder: Path, files: Sequence[Path], content: object, samples: Callable[[], Iterator[Sample]]
) -> DataSet:
    stamps = [(str(path.relative_to(folder)), (found := path.stat()).st_size, found.st_mtime_ns) for path in files]
    return DataSet(str(folder), (), [], [], _digest((stamps, content)), samples=samples)


def _digest(content: object) -> str:
    return hashlib.sha256(repr(content).encode("utf-8", "surrogateescape")).hexdigest()[:32]


# ---- Embed ----------------------------------------------------------------------------------------------------------


def embed_set(
    model: Model, data: DataSet, batch_size: int, *keep: str, views: Mapping[str, View] | None = None
) -> Encoded:
    """Embed images, with members to keep; unreadable ones, at most one in a hundred, are left out.

    Raises:
        DataError: more are unreadable, or a shard is not an archive.
    """
    if data.encoded is not None:
        return data.encoded(model)
    encoder = replace(model.encoder, keep=keep, views=views, batch_size=batch_size)
    if data.samples is None:
        return encoder.embed_shards(data.shards, store=data.store, selection=data.selection)
    rows = joined(encoder.of_samples(in_batches(data.samples(), batch_size)))
    total = len(rows.keys) + len(rows.bad)
    if len(rows.bad) > MAX_BAD_FRACTION * total:
        raise DataError(f"{len(rows.bad)} of {total} images are unreadable: {rows.bad[0].error}", data.source)
    return rows
