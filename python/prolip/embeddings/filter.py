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
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import pyarrow.compute as pc

from prolip.data import DataError, StoreConfig, expand_shards, fetch_shard, without_secrets
from prolip.data.samples import member_key
from prolip.embeddings.config import FilterOptions
from prolip.embeddings.rank import read_ranking
from prolip.embeddings.row_contents import below
from prolip.errors import UserError, check_at_least
from prolip.files import atomic_file, check_own_folder, write_atomic

RECORD = "filter.json"
_RULES = ("keep_count", "keep_share", "min_score", "max_score")
_PACKED = re.compile(r"\.(tgz|gz|zst)$", re.IGNORECASE)


def run_filter(options: FilterOptions) -> list[str]:
    """Make the copies that do not exist yet, and return the lines to print.

    Raises:
        UserError: no rule is given or one is wrong, they keep nothing, a shard is not in the ranking, or `out` holds
            another copy.
        DataError: a shard is damaged, or is not the one that was ranked; the message names it and the sample.
    """
    _check_rules(options)
    ranking = read_ranking(options.ranking)
    addresses = _choose(options, ranking["source"].unique().to_pylist())
    places = _places(list(addresses), options.out)
    last_rank = len(ranking) if options.keep_count is None else options.keep_count
    if options.keep_share is not None:
        # Exact arithmetic: 0.29 * 100 is 29, but the product of the floats is less.
        last_rank = min(last_rank, math.floor(Fraction(str(options.keep_share)) * len(ranking)))
    low, high = options.min_score, options.max_score
    kept = ranking.filter(
        (pc.field("rank") <= last_rank)
        & (pc.field("score") >= (-math.inf if low is None else low))
        & (pc.field("score") <= (math.inf if high is None else high))
        & pc.field("source").isin(list(addresses))
    )
    if not len(kept):
        raise UserError(
            f"ranking: must have samples that the rules keep (got none of {len(ranking):,} in {options.ranking})"
        )
    _record(options, list(addresses))
    groups = kept.group_by("source", use_threads=False).aggregate([("key", "list")])
    copied = {"shards": 0, "images": 0}
    for source, keys in zip(groups["source"].to_pylist(), groups["key_list"].to_pylist(), strict=True):
        target = places[source]
        if Path(source).is_dir():
            copied["images"] += copy_images(Path(source), set(keys), target)
        elif not target.exists():
            with _plain_file(addresses[source], target, options.store) as shard:
                copy_samples(shard, set(keys), target, source)
            copied["shards"] += 1
    now = " and ".join(f"{count:,} {kind}" for kind, count in copied.items() if count) or "nothing"
    return [f"{options.out}: {len(kept):,} of {len(ranking):,} ranked samples kept; {now} copied now"]


def _check_rules(options: FilterOptions) -> None:
    if all(getattr(options, name) is None for name in _RULES):
        raise UserError(f"keep_share: must be given, or another rule: {', '.join(f'--{name}' for name in _RULES)}")
    if options.keep_count is not None:
        check_at_least(1, keep_count=options.keep_count)
    if options.keep_share is not None and not 0 < options.keep_share <= 1:
        raise UserError(f"keep_share: must be above 0 and at most 1 (got {options.keep_share})")


def _choose(options: FilterOptions, ranked: list[str]) -> dict[str, str]:
    """Return the sources to copy, each with its address, which may have secrets."""
    chosen: dict[str, str] = {}
    for name in options.shards or ():
        named = [str(Path(name))] if Path(name).is_dir() else expand_shards([name], options.store)
        chosen |= {without_secrets(one): one for one in named}
    for source in (chosen := chosen or {name: name for name in ranked}):
        if source not in ranked:
            raise UserError(f"shards: must be in {options.ranking}, as {ranked[0]} is (got {source})")
    return chosen


def _places(shards: list[str], out: Path) -> dict[str, Path]:
    """Return the path of each copy in `out`: the shard's path below the common folder, without a compression suffix.

    The copy of a single folder of images is `out` itself.
    """
    if len(shards) == 1 and Path(shards[0]).is_dir():
        return {shards[0]: out}
    common = os.path.commonpath([os.path.abspath(os.path.dirname(shard)) for shard in shards])
    places: dict[str, Path] = {}
    for shard in shards:
        name = _PACKED.sub(lambda ending: ".tar" if ending[1].lower() == "tgz" else "", os.path.abspath(shard))
        place = out / os.path.relpath(name, common)
        if place in places.values():
            raise UserError(f"shards: must have distinct copies; copy {shard} separately (got {place} twice)")
        places[shard] = place
    return places


def _record(options: FilterOptions, chosen: list[str]) -> None:
    """Record the rules in `out`, so that copies made with different rules are not mixed."""
    with options.ranking.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    record = {"digest": digest, **{name: getattr(options, name) for name in _RULES}, "shards": chosen}
    path, text = options.out / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    check_own_folder(options.out, RECORD)
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        raise UserError(f"out: must hold a copy by the same ranking and rules; use another folder (got {options.out})")
    write_atomic(path, text)


# ---- One folder, one shard ------------------------------------------------------------------------------------------


def copy_images(folder: Path, names: Iterable[str], target: Path) -> int:
    """Copy images and the .txt beside each, below `target` as below `folder`; files that are there already stay.

    Args:
        names: paths of images below it.

    Returns:
        How many images were copied now.
    """
    copied = 0
    for name in sorted(names):
        path = below(folder, name)
        if not (folder / path).is_file():
            raise DataError(f"{folder}: must have the ranked image {name}; has the folder changed?")
        copied += not (target / path).is_file()
        for file in (path, path.with_suffix(".txt")):
            if (folder / file).is_file() and not (target / file).is_file():
                with atomic_file(target / file, (folder / file).stat().st_size) as temporary:
                    shutil.copyfile(folder / file, temporary)
    return copied


@contextmanager
def _plain_file(address: str, target: Path, store: StoreConfig) -> Iterator[Path]:
    """Yield a local, uncompressed file of a shard: the shard itself, or a temporary copy."""
    if "://" not in address and not _PACKED.search(address):
        yield Path(address)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    fetched = target.with_name(f".{target.name}.fetched")
    try:
        fetch_shard(address, fetched, store)
        yield fetched
    finally:
        fetched.unlink(missing_ok=True)


def copy_samples(shard: Path, keys: set[str], target: Path, name: str | None = None) -> None:
    """Write a shard with the samples of the given keys, byte for byte, and with members that belong to no sample.

    Args:
        name: the shard's name in messages; None for its path.
    """
    missing, name = set(keys), name or str(shard)
    with atomic_file(target, shard.stat().st_size) as temporary:
        with shard.open("rb") as source, temporary.open("wb") as copy:
            end = 0
            try:
                # Bytes that are not UTF-8 are escaped as in the loader's keys.
                with tarfile.open(fileobj=source, mode="r:", encoding="utf-8", errors="backslashreplace") as archive:
                    while (member := archive.next()) is not None:
                        vars(archive)["members"].clear()  # the list would grow with the archive
                        key = member_key(member.name)
                        # What is before a member, such as headers for all later ones, is kept.
                        stop = archive.offset if key is None or key in keys else member.offset
                        _copy_bytes(source, copy, end, stop)
                        missing.discard(key or "")
                        end = archive.offset
            except (tarfile.TarError, EOFError) as error:
                raise DataError(f"shard {name}: damaged or not a plain tar file, at byte {end} ({error})") from error
            copy.write(bytes(2 * tarfile.BLOCKSIZE))
        if missing:
            raise DataError(f"shard {name}: must have the ranked sample {min(missing)}; has it changed?")


def _copy_bytes(source: BinaryIO, copy: BinaryIO, start: int, end: int) -> None:
    source.seek(start)
    while start < end:
        piece = source.read(min(end - start, 2**20))
        if not piece:
            raise EOFError("truncated")
        copy.write(piece)
        start += len(piece)
