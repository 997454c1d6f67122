"""`prolip data filter`: a copy of shards with the samples that a ranking keeps, their bytes as they are.

Shards are copied one after another, a member at a time; those that lie elsewhere or are compressed are fetched first.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from io import BufferedReader
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, NamedTuple

from prolip.data import DataError, StoreConfig, expand_shards, fetch_shard, shown_shard
from prolip.embeddings.config import FilterOptions
from prolip.embeddings.rank import Chunk, read_ranking
from prolip.files import whole_file

RECORD = "filter.json"
_BLOCK = 512
_PIECE = 2**20
_PACKED = re.compile(r"\.(tgz|gz|zst)$", re.IGNORECASE)


class Pile(NamedTuple):
    """What a ranking is about."""

    rows: int
    sources: list[str]
    """In order."""


def run_filter(options: FilterOptions) -> list[str]:
    """Makes the copies that are not there yet; what there is to tell.

    Raises:
        ValueError: no rule or a wrong one is given, the ranking does not name a shard, or `out` holds another copy.
        DataError: a shard is damaged, or is not the one that was ranked; the message names it and the sample.
    """
    check_rules(options)
    pile = survey(options.ranking)
    chosen = _choose(options, pile)
    last_rank = _last_rank(options, pile.rows)
    places = _places(chosen, options.out)
    _check_out(options, chosen)
    kept_samples = kept_bytes = copied = 0
    for source, keys, rows in _kept_by_source(options, last_rank):
        if source not in places:
            continue
        kept_samples += rows
        if not keys:
            continue
        target = places[source]
        if not target.exists():
            with _plain_file(source, target, options.store) as shard:
                copy_samples(shard, keys, target, source)
            copied += 1
        kept_bytes += target.stat().st_size
    return [
        f"{options.out}: {kept_samples:,} of {pile.rows:,} ranked samples kept, {kept_bytes:,} bytes; "
        f"{copied:,} shards copied now"
    ]


def check_rules(options: FilterOptions) -> None:
    """Makes sure that the rules say something.

    Raises:
        ValueError: none is given, or one cannot be met.
    """
    if all(rule is None for rule in (options.keep_count, options.keep_share, options.min_score, options.max_score)):
        raise ValueError("nothing says what is kept: give --keep_count, --keep_share, --min_score or --max_score")
    if options.keep_count is not None and options.keep_count < 1:
        raise ValueError(f"keep_count is {options.keep_count}: it must be at least 1")
    if options.keep_share is not None and not 0 < options.keep_share <= 1:
        raise ValueError(f"keep_share is {options.keep_share}: it must be above 0 and at most 1")


def survey(ranking: Path) -> Pile:
    """Rows and sources of a ranking.

    Raises:
        ValueError: the rows of a source do not stand together.
    """
    rows, sources, seen = 0, list[str](), set[str]()
    for chunk in read_ranking(ranking):
        rows += len(chunk.keys)
        for source, _ in groupby(chunk.sources):
            if sources and source == sources[-1]:
                continue
            if source in seen:
                raise ValueError(
                    f"ranking: the rows of {source} do not stand together in {ranking}; give the table in the order in "
                    "which `prolip data rank` wrote it"
                )
            seen.add(source)
            sources.append(source)
    return Pile(rows, sources)


def _choose(options: FilterOptions, pile: Pile) -> list[str]:
    chosen = [shown_shard(shard) for shard in expand_shards(list(options.shards))] if options.shards else pile.sources
    unknown = sorted(set(chosen) - set(pile.sources))
    if unknown:
        named = ", ".join(pile.sources[:2])
        raise ValueError(f"shards: {unknown[0]} is not in {options.ranking}, which names {named}, …")
    for source in chosen:
        if "://" not in source and not Path(source).is_file():
            kind = "a folder" if Path(source).is_dir() else "no file and no address"
            raise ValueError(f"shards: {source} is {kind}: only shards can be copied")
    return chosen


def _last_rank(options: FilterOptions, rows: int) -> int:
    last = rows if options.keep_count is None else min(rows, options.keep_count)
    # As the share is written: 0.29 of 100 are 29, which the product of floats is not.
    return last if options.keep_share is None else min(last, math.floor(Fraction(str(options.keep_share)) * rows))


def _places(shards: list[str], out: Path) -> dict[str, Path]:
    """Where each shard's copy goes: as the shards lie below the folder that they have in common, without compression.

    Raises:
        ValueError: two would have one place.
    """
    if not shards:
        return {}
    common = os.path.commonpath([os.path.abspath(os.path.dirname(shard)) for shard in shards])
    places: dict[str, Path] = {}
    of: dict[Path, str] = {}
    for shard in shards:
        name = _PACKED.sub(lambda ending: ".tar" if ending[1].lower() == "tgz" else "", os.path.abspath(shard))
        place = places[shard] = out / os.path.relpath(name, common)
        if of.setdefault(place, shard) != shard:
            raise ValueError(
                f"shards: the copies of {of[place]} and {shard} would have one name: copy one of them alone"
            )
    return places


def _check_out(options: FilterOptions, chosen: list[str]) -> None:
    """Says in `out` what is kept, so that copies of different kinds are not mixed.

    Raises:
        ValueError: `out` holds another copy, or something else.
    """
    with options.ranking.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    rules = {name: getattr(options, name) for name in ("keep_count", "keep_share", "min_score", "max_score")}
    record = {"ranking": str(options.ranking), "digest": digest, **rules, "shards": chosen}
    path = options.out / RECORD
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        if any(before.get(name) != value for name, value in record.items() if name != "ranking"):
            raise ValueError(f"out: {options.out} holds a copy by another ranking, rule or choice; name another folder")
    elif options.out.is_dir() and any(options.out.iterdir()):
        raise ValueError(f"out: {options.out} holds files, but no {RECORD}: name a new or an empty folder")
    options.out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _kept_by_source(options: FilterOptions, last_rank: int) -> Iterator[tuple[str, set[str], int]]:
    """Sources in order, each with the keys that are kept of it, and how many rows those are."""
    now: str | None = None
    keys, rows = set[str](), 0
    for chunk in read_ranking(options.ranking):
        kept = _kept(chunk, options, last_rank)
        for source, places in groupby(range(len(chunk.keys)), key=chunk.sources.__getitem__):
            if source != now:
                if now is not None:
                    yield now, keys, rows
                now, keys, rows = source, set(), 0
            some = [chunk.keys[place] for place in places if kept[place]]
            keys.update(some)
            rows += len(some)
    if now is not None:
        yield now, keys, rows


def _kept(chunk: Chunk, options: FilterOptions, last_rank: int) -> list[bool]:
    kept = chunk.ranks <= last_rank
    if options.min_score is not None:
        kept &= chunk.scores >= options.min_score
    if options.max_score is not None:
        kept &= chunk.scores <= options.max_score
    return list(kept.tolist())


# ---- one shard ------------------------------------------------------------------------------------------------------


@contextmanager
def _plain_file(source: str, target: Path, store: StoreConfig) -> Iterator[Path]:
    """A local file with a shard's plain bytes: the shard itself, or what is fetched for as long as it is needed."""
    if "://" not in source and not _PACKED.search(source):
        yield Path(source)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    fetched = target.with_name(f".{target.name}.fetched")
    try:
        fetch_shard(source, fetched, store)
        yield fetched
    finally:
        fetched.unlink(missing_ok=True)


def copy_samples(shard: Path, keys: set[str], target: Path, name: str | None = None) -> None:
    """Writes a shard with the samples of those keys; members that belong to no sample are copied, too.

    Headers and contents are the bytes that they were. The file appears under its name when it is whole. Messages call
    the shard by `name`.

    Raises:
        DataError: the shard is no plain tar file, ends early, is damaged, or lacks one of the keys.
    """
    missing, called = set(keys), name or str(shard)
    with whole_file(target) as temporary:
        with shard.open("rb") as source, temporary.open("wb") as copy:
            for key, start, end in _members(called, source):
                if not key or key in keys:
                    missing.discard(key)
                    if not _copy_bytes(source, copy, start, end):
                        raise DataError(f"shard {called}: cut off in {f'sample {key}' if key else 'a member'}")
            copy.write(bytes(2 * _BLOCK))
        if missing:
            raise DataError(
                f"shard {called}: has no sample {min(missing)}, which the ranking keeps: is it another one?"
            )


def _members(shard: str, source: BufferedReader) -> Iterator[tuple[str, int, int]]:
    """The members of a tar file: the key, and where headers and contents begin and end.

    Raises:
        DataError: the file is no plain tar file, ends early or is damaged.
    """
    key, end = "", 0
    try:
        with tarfile.open(fileobj=source, mode="r:") as archive:
            while (member := archive.next()) is not None:
                vars(archive)["members"].clear()  # which would grow with the archive
                key = _key(member.name)
                if member.offset > end:
                    yield "", end, member.offset  # headers that hold for all members behind them
                end = archive.offset
                yield key, member.offset, end
        source.seek(end)
        if any(source.read(_BLOCK)):
            raise DataError(f"shard {shard}: damaged header at byte {end}, behind sample {key}")
    except (tarfile.TarError, EOFError) as error:
        behind = f", behind sample {key}" if key else ""
        raise DataError(f"shard {shard}: no plain tar file, or cut off{behind}: {error}") from error


def _key(name: str) -> str:
    """The key of a member: up to the first dot of its last name; empty for what is of no sample."""
    folder, slash, last = name.rpartition("/")
    stem, dot, _ = last.partition(".")
    described = name.split("/", maxsplit=1)[0]
    if not stem or not dot or (described.startswith("__") and described.endswith("__")):
        return ""
    return f"{folder}{slash}{stem}"


def _copy_bytes(source: BinaryIO, copy: BinaryIO, start: int, end: int) -> bool:
    """Whether all bytes were there. The archive that reads the same file finds its next header by itself."""
    source.seek(start)
    left = end - start
    while left > 0:
        piece = source.read(min(left, _PIECE))
        if not piece:
            return False
        copy.write(piece)
        left -= len(piece)
    return True
