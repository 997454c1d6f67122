"""What is embedded, divided into parts: shards, pictures of folders and lines of text files, each part by itself.

A part is the same whoever embeds it: a shard, or a fixed number of pictures or lines.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tarfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from prolip.data import Batch, BatchLoader, LoaderConfig, LoaderStats, NoSamplesError, expand_shards, shown_shard
from prolip.data.build.folder import find_images
from prolip.data.build.images import UNREADABLE, read_image
from prolip.data.samples import EXTENSIONS


@dataclass(frozen=True, kw_only=True)
class ShardPart:
    """The samples of a shard."""

    shard: str


@dataclass(frozen=True, kw_only=True)
class FolderPart:
    """Pictures below a folder, by their paths in it."""

    folder: str
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LinesPart:
    """Lines of a text file, a caption each."""

    path: str
    first: int
    captions: tuple[str, ...]


InputPart = ShardPart | FolderPart | LinesPart


def describe(part: InputPart) -> dict[str, Any]:
    """A part for the manifest: names of files and texts as a digest, which tells when they have changed; of an address
    what is no secret."""
    said = asdict(part)
    if isinstance(part, ShardPart):
        said["shard"] = shown_shard(part.shard)
    for name in ("names", "captions"):
        if name in said:
            items = said.pop(name)
            digest = hashlib.sha256("\0".join(items).encode("utf-8", "surrogateescape")).hexdigest()[:16]
            said |= {"count": len(items), "digest": digest}
    return said


def plan_parts(data: Sequence[str], lines: Sequence[Path], rows_per_part: int) -> list[InputPart]:
    """The parts of shards and folders of pictures, then of text files, in a fixed order.

    Raises:
        ValueError: a pattern finds nothing, a folder holds no picture, a file no line, or a text or a picture's name
            is not UTF-8.
    """
    parts: list[InputPart] = []
    for name in data:
        if Path(name).is_dir():
            parts += _of_folder(Path(name), rows_per_part)
        else:
            parts += [ShardPart(shard=shard) for shard in expand_shards([name])]
    for path in lines:
        parts += _of_lines(path, rows_per_part)
    return parts


def _of_folder(folder: Path, rows_per_part: int) -> list[FolderPart]:
    names = [str(path.relative_to(folder)) for path in find_images(folder)]
    if not names:
        hint = f": for its shards, write '{folder}/*.tar'" if any(folder.glob("*.tar")) else ""
        raise ValueError(f"data: the folder {folder} holds no picture{hint}")
    for name in names:
        if name.encode(errors="replace").decode() != name:
            raise ValueError(f"data: the name of {name!r} in {folder} is not UTF-8, which the parts' keys are")
    starts = range(0, len(names), rows_per_part)
    return [FolderPart(folder=str(folder), names=tuple(names[start : start + rows_per_part])) for start in starts]


def _of_lines(path: Path, rows_per_part: int) -> list[LinesPart]:
    captions = read_lines(path)
    if not captions:
        raise ValueError(f"lines: {path} is empty")
    return [
        LinesPart(path=str(path), first=start, captions=tuple(captions[start : start + rows_per_part]))
        for start in range(0, len(captions), rows_per_part)
    ]


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, empty ones included, so that a line's number is its caption's.

    Raises:
        ValueError: it is no file, or not in UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"lines: {path} is not in UTF-8: {error}") from error
    except OSError as error:
        raise ValueError(f"lines: {path} cannot be read: {error}") from error
    return text.removesuffix("\n").split("\n") if text else []


# ---- the batches of one part after another -------------------------------------------------------------------------


class PartEnd(NamedTuple):
    """What is known of a part once all of it was read."""

    bad: int
    named: tuple[str, ...]


class _Begun(NamedTuple):
    """A part that is being read."""

    part: ShardPart | FolderPart
    shard: str
    loader: BatchLoader | None
    """None where there is no sample."""
    batches: Iterator[Batch]
    first: Batch | None
    lost: list[str]
    """Pictures whose files could not be read at all."""


class Reading:
    """The batches of one part after another; while one is read, the next one's loader fills up.

    A context manager: its end joins the loaders' threads and removes the files that folders' pictures were put into.
    Keys are those of the source: a shard's own, or the pictures' paths.
    """

    def __init__(self, parts: Sequence[ShardPart | FolderPart], config: LoaderConfig, scratch: Path) -> None:
        """`config` says how to read; which shards and that nothing is shuffled or left out is seen to here."""
        self._parts, self._scratch = list(parts), scratch
        self._config = replace(
            config, mode="once", shuffle_window=0, last_batch="keep", num_epochs=1, max_bad_fraction=1.0
        )
        self._executor = ThreadPoolExecutor(1, "next-part")
        self._next: Future[_Begun] | None = None
        self._now: _Begun | None = None
        self.places: deque[int] = deque()
        """For each batch that was given, the place of its part among `parts`; the consumer takes them off."""
        self.ends: dict[int, PartEnd] = {}
        """What was found about the parts that were read to their end, by place."""

    def __iter__(self) -> Iterator[Batch]:
        """Batches whose keys are the source's.

        Raises:
            DataError: a shard is missing, or is none.
        """
        self._submit(0)
        for place, part in enumerate(self._parts):
            assert self._next is not None
            begun = self._now = self._next.result()
            self._submit(place + 1)
            batch = begun.first
            while batch is not None:
                self.places.append(place)
                yield batch._replace(keys=_keys(part, batch.keys))
                batch = next(begun.batches, None)
            self.ends[place] = _end(begun)
            self._finish(begun)

    def stats(self) -> LoaderStats:
        """The loader's at work."""
        assert self._now is not None
        assert self._now.loader is not None
        return self._now.loader.stats()

    def __enter__(self) -> Reading:
        return self

    def __exit__(self, *_: object) -> None:
        if self._next is not None and not self._next.cancel() and self._next.exception() is None:
            self._finish(self._next.result())
        if self._now is not None:
            self._finish(self._now)
        self._executor.shutdown()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _submit(self, place: int) -> None:
        more = place < len(self._parts)
        self._next = self._executor.submit(self._begin, place) if more else None

    def _begin(self, place: int) -> _Begun:
        part = self._parts[place]
        lost: list[str] = []
        if isinstance(part, ShardPart):
            shard = part.shard
        else:
            self._scratch.mkdir(parents=True, exist_ok=True)
            shard = str(self._scratch / f"{place}.tar")
            lost = _pack(part, Path(shard), with_captions=bool(self._config.captions))
        try:
            loader = BatchLoader(replace(self._config, shards=(shard,)))
        except NoSamplesError:
            return _Begun(part, shard, None, iter(()), None, lost)
        batches = iter(loader)
        return _Begun(part, shard, loader, batches, next(batches, None), lost)

    def _finish(self, begun: _Begun) -> None:
        if begun.loader is not None:
            begun.loader.close()
        if isinstance(begun.part, FolderPart):
            Path(begun.shard).unlink(missing_ok=True)


def _keys(part: ShardPart | FolderPart, keys: list[str]) -> list[str]:
    return keys if isinstance(part, ShardPart) else [part.names[int(key)] for key in keys]


def _end(begun: _Begun) -> PartEnd:
    if begun.loader is None:
        return PartEnd(len(begun.lost), tuple(begun.lost))
    stats = begun.loader.stats()
    named = list(stats.bad_samples)
    if isinstance(begun.part, FolderPart):
        part = begun.part
        named = [
            re.sub(r"\b\d{8}\b", lambda found: part.names[int(found[0])], text.replace(begun.shard, part.folder))
            for text in named
        ]
    return PartEnd(sum(stats.bad.values()) + len(begun.lost), tuple(begun.lost + named))


def _pack(part: FolderPart, shard: Path, *, with_captions: bool) -> list[str]:
    """Writes the pictures' bytes, and the .txt beside each, as a shard; what could not be read."""
    lost = []
    with tarfile.open(shard, "w") as archive:
        for number, name in enumerate(part.names):
            path = Path(part.folder) / name
            suffix = path.suffix.lower().removeprefix(".")
            try:
                if suffix in EXTENSIONS:
                    data = path.read_bytes()
                else:
                    picture = read_image(path, None)
                    data, suffix = picture.data, picture.extension
            except UNREADABLE as error:
                lost.append(f"{part.folder}: {name}: {error}")
                continue
            _add(archive, f"{number:08d}.{suffix}", data)
            caption = path.with_suffix(".txt")
            if with_captions and caption.is_file():
                _add(archive, f"{number:08d}.txt", caption.read_bytes())
    return lost


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, BytesIO(data))
