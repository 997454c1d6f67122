"""Copy shards and folders of images with only the samples of a selection (`prolip data copy`).

Shards are copied one at a time, sample by sample and byte for byte. Remote or compressed shards are downloaded or
unpacked first.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from prolip.data import DataError, StoreConfig, expand_shards, fetch_shard, shard_regions, without_secrets
from prolip.embeddings.config import CopyOptions
from prolip.embeddings.inputs import plan_inputs
from prolip.errors import UserError, check
from prolip.store.atomic_writes import atomic_file, check_own_folder
from prolip.store.folder import Folder
from prolip.store.selection import Chosen, read_selection

RECORD = "copy.json"
_PACKED = re.compile(r"\.(tgz|gz|zst)$", re.IGNORECASE)


def run_copy(options: CopyOptions) -> list[str]:
    """Make the copies that do not exist yet, and return the lines to print.

    Raises:
        UserError: the selection is empty, a shard is not in it, or `out` holds another copy.
        DataError: a shard or folder is damaged, or has changed since its samples were chosen; the message names it.
    """
    digest, sources = hashlib.sha256(), dict[str, str]()
    for one in read_selection(options.selection):
        sources[one.source] = one.source
        digest.update(one.rows.tobytes())
    addresses = _addresses(options, sources)
    places = _places(list(addresses), options.out)
    check_own_folder(options.out, RECORD)
    record = json.dumps({"digest": digest.hexdigest(), "shards": [*addresses]}, indent=1).encode()
    check(
        Folder(str(options.out)).create(RECORD, record) == record,
        "out",
        "must hold a copy of the same selection; use another folder",
        options.out,
    )
    samples, copied = 0, {"shards": 0, "images": 0}
    for one in read_selection(options.selection):
        if (target := places.get(one.source)) is None:
            continue
        samples += len(one.rows)
        if Path(one.source).is_dir():
            copied["images"] += copy_images(one, target)
        elif not target.exists():
            with _plain_file(addresses[one.source], target, options.store) as shard:
                copy_samples(one, shard, target, options.store)
            copied["shards"] += 1
    now = " and ".join(f"{count:,} {kind}" for kind, count in copied.items() if count) or "nothing"
    return [f"{options.out}: {samples:,} chosen samples; {now} copied now"]


def _addresses(options: CopyOptions, sources: dict[str, str]) -> dict[str, str]:
    """The sources to copy, each with its address, which may have secrets."""
    check(sources, "selection", "must have samples", options.selection)
    if not options.shards:
        return sources
    chosen: dict[str, str] = {}
    for name in options.shards:
        named = [str(Path(name))] if Path(name).is_dir() else expand_shards([name], options.store)
        chosen |= {without_secrets(one): one for one in named}
    for source in chosen:
        if source not in sources:
            raise UserError("shards", f"must be in {options.selection}, as {next(iter(sources))} is", source)
    return chosen


def _places(shards: list[str], out: Path) -> dict[str, Path]:
    """The path of each copy in `out`: the shard's path below the common folder, without a compression suffix.

    The copy of a single folder of images is `out` itself.
    """
    if len(shards) == 1 and Path(shards[0]).is_dir():
        return {shards[0]: out}
    common = os.path.commonpath([os.path.dirname(os.path.abspath(shard)) for shard in shards])
    copies: dict[Path, str] = {}
    for shard in shards:
        name = _PACKED.sub(lambda ending: ".tar" if ending[1].lower() == "tgz" else "", os.path.abspath(shard))
        place = out / os.path.relpath(name, common)
        check(
            copies.setdefault(place, shard) == shard,
            "shards",
            f"must have distinct copies; copy {shard} separately",
            f"{place} twice",
        )
    return {shard: place for place, shard in copies.items()}


# ---- One folder, one shard ------------------------------------------------------------------------------------------


def copy_images(chosen: Chosen, target: Path) -> int:
    """Copy images and the .txt beside each, below `target` as below their folder; files that are there already stay.

    Returns the number of images copied now.
    """
    folder, copied = Path(chosen.source), 0
    (images,) = plan_inputs((), [folder], (), 1 << 32, StoreConfig())
    _check_unchanged(chosen, images.stamp, len(images.items))
    for row in chosen.rows:
        name = Path(images.items[row])
        copied += not (target / name).is_file()
        for file in (name, name.with_suffix(".txt")):
            if (folder / file).is_file() and not (target / file).is_file():
                with atomic_file(target / file, (folder / file).stat().st_size) as temporary:
                    shutil.copyfile(folder / file, temporary)
    return copied


@contextmanager
def _plain_file(address: str, target: Path, store: StoreConfig) -> Iterator[Path]:
    """A local, uncompressed file of a shard: the shard itself, or a temporary copy."""
    if "://" not in address and not _PACKED.search(address):
        yield Path(address)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".fetched-", dir=target.parent) as folder:
        fetched = Path(folder, target.name)
        fetch_shard(address, fetched, store)
        yield fetched


def copy_samples(chosen: Chosen, shard: Path, target: Path, store: StoreConfig) -> None:
    """Write a shard with the chosen samples, byte for byte, and with what is before its first sample."""
    stamp, places = shard_regions(str(shard), store)
    _check_unchanged(chosen, stamp, len(places) - 1)
    with (
        atomic_file(target, shard.stat().st_size) as temporary,
        shard.open("rb") as source,
        temporary.open("wb") as copy,
    ):
        for start, end in [(0, places[0]), *((places[row], places[row + 1]) for row in chosen.rows)]:
            source.seek(start)
            copy.write(source.read(end - start).ljust(end - start, b"\0"))  # padding may be missing at the end
        copy.write(bytes(2 * tarfile.BLOCKSIZE))


def _check_unchanged(chosen: Chosen, stamp: str, count: int) -> None:
    if chosen.stamp not in {"", stamp} or (chosen.rows >= count).any():
        raise DataError(f"{chosen.source}: must be unchanged since its samples were chosen")
