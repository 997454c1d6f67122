"""Divide the inputs of `prolip embed` into parts, and read their batches.

A part is a shard, or a fixed number of images of a folder or lines of a text file. Parts do not depend on the number of
processes.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tarfile
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from prolip.data import (
    Batch,
    BatchLoader,
    LoaderConfig,
    LoaderStats,
    NoSampleError,
    StoreConfig,
    expand_shards,
    without_secrets,
)
from prolip.data.build.folder import find_images
from prolip.data.build.images import UNREADABLE, read_for_loader
from prolip.data.build.shards import add_sample
from prolip.errors import UserError, sentence
from prolip.files import read_text, writing


@dataclass(frozen=True, kw_only=True)
class ShardPart:
    """All samples of a shard."""

    shard: str


@dataclass(frozen=True, kw_only=True)
class FolderPart:
    """Some images of a folder."""

    folder: str
    names: tuple[str, ...]
    """Paths below the folder."""


@dataclass(frozen=True, kw_only=True)
class LinesPart:
    """Some lines of a text file, one caption each."""

    path: str
    first: int
    """Number of the first line, from 0."""
    captions: tuple[str, ...]


_NAMED = 20
"""Largest number of unusable samples that are described per part."""
InputPart = ShardPart | FolderPart | LinesPart

_BEGIN = 65_536
"""How many bytes of a shard tell it from another one of the same size."""


def describe(part: InputPart) -> dict[str, Any]:
    """Return a part's entry in the manifest, with a digest of file names or texts, and addresses without secrets.

    `files` is a digest of the sizes of local files, and of the beginning of a shard, whose size is rounded.
    (Modification times change when a data set is copied, and then nothing should be embedded again.)
    """
    entry = asdict(part)
    files: list[Path] = []
    begin = b""
    if isinstance(part, ShardPart):
        entry["shard"] = without_secrets(part.shard)
        files = [Path(part.shard)]
        if files[0].is_file():
            with files[0].open("rb") as shard:
                begin = shard.read(_BEGIN)
    elif isinstance(part, FolderPart):
        images = [Path(part.folder) / name for name in part.names]
        files = [file for image in images for file in (image, image.with_suffix(".txt"))]
    sizes = [file.stat().st_size for file in files if file.exists()]
    entry["files"] = hashlib.sha256(repr(sizes).encode() + begin).hexdigest()[:16]
    for name in ("names", "captions"):
        if name in entry:
            items = entry.pop(name)
            digest = hashlib.sha256("\0".join(items).encode("utf-8", "surrogateescape")).hexdigest()[:16]
            entry |= {"count": len(items), "digest": digest}
    return entry


def plan_parts(
    shards: Sequence[str], images: Sequence[Path], lines: Sequence[Path], rows_per_part: int, store: StoreConfig
) -> list[InputPart]:
    """Divide shards, then folders of images, then text files, into parts, in a fixed order.

    Args:
        shards: paths, addresses or patterns.
        images: folders of images.
        lines: text files.
        rows_per_part: images of a folder, or lines, per part.
        store: how remote shards are read.

    Raises:
        UserError: a pattern matches nothing, an address or a setting of the store is wrong, a folder has no image, a
            file has no line, or a text or an image's name is not UTF-8.
    """
    parts: list[InputPart] = []
    for name in shards:
        if name and Path(name).is_dir():
            raise UserError(f"shards: {name} is a folder: name its shards, '{name}/*.tar', or its images with --images")
        parts += [ShardPart(shard=shard) for shard in expand_shards([name], store)]
    for folder in images:
        parts += _of_folder(folder, rows_per_part)
    for path in lines:
        parts += _of_lines(path, rows_per_part)
    return parts


def _of_folder(folder: Path, rows_per_part: int) -> list[FolderPart]:
    if not folder.is_dir():
        raise UserError(f"images: {folder} is not a folder")
    names = [str(path.relative_to(folder)) for path in find_images(folder)]
    if not names:
        hint = f": for its shards, write --shards '{folder}/*.tar'" if any(folder.glob("*.tar")) else ""
        raise UserError(f"images: the folder {folder} has no image{hint}")
    for name in names:
        if name.encode(errors="replace").decode() != name:
            raise UserError(f"images: the name of {name!r} in {folder} is not UTF-8: it cannot be a key")
    starts = range(0, len(names), rows_per_part)
    return [FolderPart(folder=str(folder), names=tuple(names[start : start + rows_per_part])) for start in starts]


def _of_lines(path: Path, rows_per_part: int) -> list[LinesPart]:
    try:
        captions = read_lines(path)
    except OSError as error:
        raise UserError(f"lines: {sentence(error)}") from error
    if not captions:
        raise UserError(f"lines: {path} is empty")
    return [
        LinesPart(path=str(path), first=start, captions=tuple(captions[start : start + rows_per_part]))
        for start in range(0, len(captions), rows_per_part)
    ]


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, including empty ones, so that a caption's number is its line number.

    Raises:
        UserError: the file is not UTF-8.
        OSError: it cannot be read.
    """
    text = read_text(path)
    return text.removesuffix("\n").split("\n") if text else []


# ---- Batches of one part after another -------------------------------------------------------------------------


class PartEnd(NamedTuple):
    """The unusable samples of a part that was read to its end."""

    bad: int
    """Number of unusable samples."""
    named: tuple[str, ...]
    """Descriptions of the first of them."""


class _OpenPart(NamedTuple):
    """A part that is being read."""

    part: ShardPart | FolderPart
    shard: str
    loader: BatchLoader | None
    """None if the shard has no sample."""
    batches: Iterator[Batch]
    first: Batch | None
    lost: list[str]
    """Descriptions of image files that could not be read."""


class Reading:
    """Iterates over the batches of one part after another; the next part's loader prefetches meanwhile.

    Keys are a shard's own keys, or the images' paths. Use it as a context manager: it joins the loaders' threads and
    removes temporary shards.
    """

    def __init__(self, parts: Sequence[ShardPart | FolderPart], config: LoaderConfig, scratch: Path) -> None:
        """`config` sets how samples are read; shards and order are set here."""
        self._parts, self._scratch = list(parts), scratch
        self._config = replace(
            config, mode="once", shuffle_window=0, last_batch="keep", num_epochs=1, max_bad_fraction=1.0
        )
        self._executor = ThreadPoolExecutor(1, "next-part")
        self._next: Future[_OpenPart] | None = None
        self._now: _OpenPart | None = None
        self.places: deque[int] = deque()
        """For each batch returned, the index of its part in `parts`; the consumer removes them."""
        self.ends: dict[int, PartEnd] = {}
        """What the loaders could not use of the parts that were read to their end, by index in `parts`."""
        self.lost: defaultdict[int, list[str]] = defaultdict(list)
        """Descriptions of samples that the consumer could not decode, by the index of their part."""

    def __iter__(self) -> Iterator[Batch]:
        """Yield all batches.

        Raises:
            DataError: a shard is missing, or is not an archive.
        """
        self._submit(0)
        for place, part in enumerate(self._parts):
            assert self._next is not None
            opened = self._now = self._next.result()
            self._submit(place + 1)
            batch = opened.first
            while batch is not None:
                self.places.append(place)
                yield batch._replace(keys=_keys(part, batch.keys))
                batch = next(opened.batches, None)
            self.ends[place] = _end(opened)
            self._close(opened)

    def end(self, place: int) -> PartEnd:
        """Return all unusable samples of a part whose batches are all embedded."""
        bad, named = self.ends[place]
        lost = self.lost[place]
        return PartEnd(bad + len(lost), (*named, *lost[:_NAMED]))

    def stats(self) -> LoaderStats:
        """Statistics of the loader in use."""
        assert self._now is not None
        assert self._now.loader is not None
        return self._now.loader.stats()

    def __enter__(self) -> Reading:
        return self

    def __exit__(self, *_: object) -> None:
        if self._next is not None and not self._next.cancel() and self._next.exception() is None:
            self._close(self._next.result())
        if self._now is not None:
            self._close(self._now)
        self._executor.shutdown()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _submit(self, place: int) -> None:
        more = place < len(self._parts)
        self._next = self._executor.submit(self._open, place) if more else None

    def _open(self, place: int) -> _OpenPart:
        part = self._parts[place]
        lost: list[str] = []
        if isinstance(part, ShardPart):
            shard = part.shard
        else:
            self._scratch.mkdir(parents=True, exist_ok=True)
            shard = str(self._scratch / f"{place}.tar")
            with writing(Path(shard)):
                lost = _pack(
                    part, Path(shard), with_captions=bool(self._config.captions) or "txt" in self._config.keep_members
                )
        try:
            loader = BatchLoader(replace(self._config, shards=(shard,)))
        except NoSampleError:
            return _OpenPart(part, shard, None, iter(()), None, lost)
        batches = iter(loader)
        return _OpenPart(part, shard, loader, batches, next(batches, None), lost)

    def _close(self, opened: _OpenPart) -> None:
        if opened.loader is not None:
            opened.loader.close()
        if isinstance(opened.part, FolderPart):
            Path(opened.shard).unlink(missing_ok=True)


def _keys(part: ShardPart | FolderPart, keys: list[str]) -> list[str]:
    return keys if isinstance(part, ShardPart) else [part.names[int(key)] for key in keys]


def _end(opened: _OpenPart) -> PartEnd:
    if opened.loader is None:
        return PartEnd(len(opened.lost), tuple(opened.lost))
    stats = opened.loader.stats()
    named = list(stats.bad_samples)
    if isinstance(opened.part, FolderPart):
        named = [_renamed(text, opened.shard, opened.part) for text in named]
    return PartEnd(sum(stats.bad.values()) + len(opened.lost), tuple(opened.lost + named))


def _renamed(text: str, shard: str, part: FolderPart) -> str:
    """Return a description with the folder in place of the shard, and the image's name in place of the sample's key."""
    before, found, after = text.partition(shard)
    after = re.sub(r"\b\d{8}\b", lambda key: part.names[int(key[0])], after, count=1)
    return f"{before}{part.folder if found else ''}{after}"


def _pack(part: FolderPart, shard: Path, *, with_captions: bool) -> list[str]:
    """Write the images of a part, and the .txt beside each, to a shard; return descriptions of unreadable images."""
    lost = []
    with tarfile.open(shard, "w") as archive:
        for number, name in enumerate(part.names):
            path = Path(part.folder) / name
            try:
                image = read_for_loader(path)
            except UNREADABLE as error:
                lost.append(f"{part.folder}: {name}: {error}")
                continue
            members = {image.extension: image.data}
            caption = path.with_suffix(".txt")
            if with_captions and caption.is_file():
                members["txt"] = caption.read_bytes()
            add_sample(archive, f"{number:08d}", members)
    return lost
