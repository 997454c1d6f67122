"""Copy shards and folders of images with only the samples chosen from a ranking (`prolip data filter`).

Shards are copied one at a time, member by member and byte for byte. Remote or compressed shards are downloaded or
unpacked first.
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
from typing import BinaryIO

from prolip.data import DataError, StoreConfig, expand_shards, fetch_shard, without_secrets
from prolip.embeddings.config import FilterOptions
from prolip.embeddings.copy_images import copy_images
from prolip.embeddings.rank import read_ranking
from prolip.errors import UserError, check_at_least
from prolip.files import atomic_file, check_own_folder, write_atomic

RECORD = "filter.json"
_BLOCK = 512
_PIECE = 2**20
_PACKED = re.compile(r"\.(tgz|gz|zst)$", re.IGNORECASE)


def run_filter(options: FilterOptions) -> list[str]:
    """Make the copies that do not exist yet, and return the lines to print.

    Raises:
        UserError: no rule is given or one is wrong, they keep nothing, a shard is not in the ranking, or `out` holds
            another copy.
        DataError: a shard is damaged, or is not the one that was ranked; the message names it and the sample.
    """
    check_rules(options)
    ranked, sources = summarize(options.ranking)
    chosen = _choose(options, sources)
    last_rank = _last_rank(options, ranked)
    places = _places(chosen, options.out)
    _check_out(options, chosen)
    kept_samples = kept_bytes = 0
    copied = {"shards": 0, "images": 0}
    for source, keys, rows in _kept_by_source(options, last_rank):
        if source not in places:
            continue
        kept_samples += rows
        if not keys:
            continue
        target = places[source]
        if Path(source).is_dir():
            images, size = copy_images(Path(source), keys, target)
            copied["images"] += images
            kept_bytes += size
            continue
        if not target.exists():
            with _plain_file(source, target, options.store) as shard:
                copy_samples(shard, keys, target, source)
            copied["shards"] += 1
        kept_bytes += target.stat().st_size
    if not kept_samples:
        (options.out / RECORD).unlink()  # it would refuse other rules
        raise UserError(f"the rules keep none of the {ranked:,} samples of {options.ranking}: nothing was copied")
    folders = [Path(source).is_dir() for source in chosen]
    kinds = [*(["images"] if any(folders) else []), *([] if all(folders) else ["shards"])]
    now = " and ".join(f"{copied[kind]:,} {kind}" for kind in kinds)
    return [
        f"{options.out}: {kept_samples:,} of {ranked:,} ranked samples kept, {kept_bytes:,} bytes; {now} copied now"
    ]


def check_rules(options: FilterOptions) -> None:
    """Check that at least one rule is given, and that each is in range.

    Raises:
        UserError: naming the rule.
    """
    if all(rule is None for rule in (options.keep_count, options.keep_share, options.min_score, options.max_score)):
        raise UserError("no rule says what to keep: give --keep_count, --keep_share, --min_score or --max_score")
    if options.keep_count is not None:
        check_at_least(1, keep_count=options.keep_count)
    if options.keep_share is not None and not 0 < options.keep_share <= 1:
        raise UserError(f"keep_share is {options.keep_share}: it must be above 0 and at most 1")
    for name in ("min_score", "max_score"):
        if math.isnan(getattr(options, name) or 0):
            raise UserError(f"{name} is nan: it must be a number")
    low, high = options.min_score, options.max_score
    if low is not None and high is not None and low > high:
        raise UserError(f"min_score is {low}: it must be at most max_score, which is {high}")


def summarize(ranking: Path) -> tuple[int, list[str]]:
    """Return the number of rows of a ranking, and its sources in order.

    Raises:
        UserError: the rows of a source are not contiguous.
    """
    rows, sources, seen = 0, list[str](), set[str]()
    for chunk in read_ranking(ranking):
        rows += len(chunk.keys)
        for source, _ in groupby(chunk.sources):
            if sources and source == sources[-1]:
                continue
            if source in seen:
                raise UserError(
                    f"ranking: the rows of {source} are not contiguous in {ranking}: keep the order in which "
                    "`prolip data rank` wrote them"
                )
            seen.add(source)
            sources.append(source)
    return rows, sources


def _choose(options: FilterOptions, sources: list[str]) -> list[str]:
    chosen = (
        [source for name in options.shards for source in _expand(name, options.store)] if options.shards else sources
    )
    unknown = sorted(set(chosen) - set(sources))
    if unknown:
        first = ", ".join(sources[:2])
        raise UserError(f"shards: {unknown[0]} is not in {options.ranking}, whose sources are {first}, …")
    for source in chosen:
        if "://" not in source and not Path(source).exists():
            raise UserError(f"shards: {source} is neither a file nor a folder nor an address")
        if Path(source).is_file() and Path(source).suffix == ".txt":
            raise UserError(f"shards: {source} is a text file: only shards and folders of images can be copied")
    return chosen


def _expand(name: str, store: StoreConfig) -> list[str]:
    """Return the sources that a name stands for: a folder, or the shards of a pattern."""
    return (
        [str(Path(name))] if Path(name).is_dir() else [without_secrets(shard) for shard in expand_shards([name], store)]
    )


def _last_rank(options: FilterOptions, rows: int) -> int:
    last = rows if options.keep_count is None else min(rows, options.keep_count)
    # Exact arithmetic: 0.29 * 100 is 29, but the product of the floats is less.
    return last if options.keep_share is None else min(last, math.floor(Fraction(str(options.keep_share)) * rows))


def _places(shards: list[str], out: Path) -> dict[str, Path]:
    """Return the path of each copy in `out`: the shard's path below the common folder, without a compression suffix.

    The copy of a single folder of images is `out` itself.

    Raises:
        UserError: two copies would have the same path.
    """
    if not shards:
        return {}
    if len(shards) == 1 and Path(shards[0]).is_dir():
        return {shards[0]: out}
    common = os.path.commonpath([os.path.abspath(os.path.dirname(shard)) for shard in shards])
    places: dict[str, Path] = {}
    of: dict[Path, str] = {}
    for shard in shards:
        name = _PACKED.sub(lambda ending: ".tar" if ending[1].lower() == "tgz" else "", os.path.abspath(shard))
        place = places[shard] = out / os.path.relpath(name, common)
        if of.setdefault(place, shard) != shard:
            raise UserError(
                f"shards: the copies of {of[place]} and {shard} would have the same name: copy them separately"
            )
    return places


def _check_out(options: FilterOptions, chosen: list[str]) -> None:
    """Record the rules in `out`, so that copies made with different rules are not mixed.

    Raises:
        UserError: `out` holds another copy, or something else.
    """
    with options.ranking.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    rules = {name: getattr(options, name) for name in ("keep_count", "keep_share", "min_score", "max_score")}
    record = {"ranking": str(options.ranking), "digest": digest, **rules, "shards": chosen}
    path = options.out / RECORD
    check_own_folder(options.out, RECORD)
    if path.is_file():
        try:
            before = json.loads(path.read_bytes())
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error}): use another folder") from error
        copied = any(file != path for file in options.out.iterdir())
        if copied and any(before.get(name) != value for name, value in record.items() if name != "ranking"):
            raise UserError(f"out: {options.out} holds a copy by another ranking, rule or choice: use another folder")
    write_atomic(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def _kept_by_source(options: FilterOptions, last_rank: int) -> Iterator[tuple[str, set[str], int]]:
    """Yield each source in order, with the keys to keep and the number of their rows."""
    now: str | None = None
    keys, rows = set[str](), 0
    for chunk in read_ranking(options.ranking):
        kept = chunk.ranks <= last_rank
        if options.min_score is not None:
            kept &= chunk.scores >= options.min_score
        if options.max_score is not None:
            kept &= chunk.scores <= options.max_score
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


# ---- one shard ------------------------------------------------------------------------------------------------------


@contextmanager
def _plain_file(source: str, target: Path, store: StoreConfig) -> Iterator[Path]:
    """Yield a local, uncompressed file of a shard: the shard itself, or a temporary copy."""
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
    """Write a shard with the samples of the given keys, byte for byte, and with members that belong to no sample.

    The file gets its name when it is complete.

    Args:
        shard: a plain tar file.
        keys: the samples to keep.
        target: the copy.
        name: the shard's name in messages; None for its path.

    Raises:
        DataError: the shard is not a plain tar file, is truncated or damaged, or lacks one of the keys.
    """
    missing, called = set(keys), name or str(shard)
    with atomic_file(target, shard.stat().st_size) as temporary:
        with shard.open("rb") as source, temporary.open("wb") as copy:
            for key, start, end in _members(called, source):
                if not key or key in keys:
                    missing.discard(key)
                    if not _copy_bytes(source, copy, start, end):
                        raise DataError(f"shard {called}: truncated in {f'sample {key}' if key else 'a member'}")
            copy.write(bytes(2 * _BLOCK))
        if missing:
            raise DataError(
                f"shard {called}: has no sample {min(missing)}, which the ranking keeps: has the shard changed?"
            )


def _members(shard: str, source: BufferedReader) -> Iterator[tuple[str, int, int]]:
    """Yield the key of each member of a tar file, and the byte range of its headers and contents.

    Raises:
        DataError: the file is not a plain tar file, is truncated or damaged.
    """
    key, end = "", 0
    try:
        with tarfile.open(fileobj=source, mode="r:") as archive:
            while (member := archive.next()) is not None:
                vars(archive)["members"].clear()  # the list would grow with the archive
                key = _key(member.name)
                if member.offset > end:
                    yield "", end, member.offset  # headers that apply to all later members
                end = archive.offset
                yield key, member.offset, end
        source.seek(end)
        if any(source.read(_BLOCK)):
            raise DataError(f"shard {shard}: damaged header at byte {end}, after sample {key}")
    except (tarfile.TarError, EOFError) as error:
        after = f", after sample {key}" if key else ""
        raise DataError(f"shard {shard}: not a plain tar file, or truncated{after}: {error}") from error


def _key(name: str) -> str:
    """Return the key of a member: its path up to the first dot of the file name; "" if it belongs to no sample."""
    folder, slash, last = name.rpartition("/")
    stem, dot, _ = last.partition(".")
    described = name.split("/", maxsplit=1)[0]
    if not stem or not dot or (described.startswith("__") and described.endswith("__")):
        return ""
    return f"{folder}{slash}{stem}"


def _copy_bytes(source: BinaryIO, copy: BinaryIO, start: int, end: int) -> bool:
    """Copy a byte range; False if the file ends early. Moves the file's position; tarfile seeks to its next header."""
    source.seek(start)
    left = end - start
    while left > 0:
        piece = source.read(min(left, _PIECE))
        if not piece:
            return False
        copy.write(piece)
        left -= len(piece)
    return True
