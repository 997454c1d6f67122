"""Write a folder of WebDataset shards atomically, through a temporary folder beside it."""

import hashlib
import io
import json
import logging
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from itertools import chain, islice
from pathlib import Path
from typing import Self
from uuid import uuid4

from prolip.errors import UserError, check
from prolip.store.atomic_writes import check_writable
from prolip.store.disk_full import writing

logger = logging.getLogger(__name__)

RECORD = "dataset.json"
OUR_FILES = ("*.tar", RECORD, "tokenizer.json", "ATTRIBUTION.md")
"""All that a builder writes. A folder with another file, or without a record, is never replaced."""

Json = Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One sample of a shard."""

    key: str
    image: bytes
    extension: str
    caption: str | None
    record: Json


@dataclass(frozen=True, kw_only=True)
class BadImage:
    """An image that was skipped."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class BuildSummary:
    """The outcome of a build."""

    out: Path
    already_built: bool
    """Then nothing was written."""
    samples: dict[str, int]
    """By set of shards ("train", "test-twtr")."""
    shards: dict[str, int]
    skipped: tuple[BadImage, ...] = ()
    notes: tuple[str, ...] = ()
    """What was converted, or skipped and why."""
    seconds: float = 0.0

    @classmethod
    def from_record(cls, out: Path, record: Json, notes: Sequence[str], *, already_built: bool, seconds: float) -> Self:
        """Of a folder with this dataset.json."""
        samples, shards = record["samples"], record["shards"]
        assert isinstance(samples, dict), "written by finish"
        assert isinstance(shards, dict), "written by finish"
        return cls(
            out=out, already_built=already_built, samples=samples, shards=shards, notes=tuple(notes), seconds=seconds
        )


@dataclass
class ShardFolder:
    """A folder of shards while it is being written."""

    path: Path
    shards: dict[str, int] = field(default_factory=dict)
    samples: dict[str, int] = field(default_factory=dict)

    def write(self, name: str, samples: Iterable[Sample], samples_per_shard: int) -> None:
        """Write NAME-000000.tar, NAME-000001.tar, ...; nothing without samples. Equal samples give equal bytes."""
        left, count = iter(samples), 0
        while (first := next(left, None)) is not None:
            file = f"{name}-{count // samples_per_shard:06}.tar"
            with tarfile.open(self.path / file, "w") as shard:
                for sample in chain([first], islice(left, samples_per_shard - 1)):
                    add_sample(shard, sample.key, _members(sample))
                    count += 1
                    self.shards[file] = self.shards.get(file, 0) + 1
        if count:
            self.samples[name] = count

    def write_text(self, name: str, text: str) -> None:
        """Write a text file."""
        (self.path / name).write_text(text, encoding="utf-8")

    def finish(self, record: Json) -> Json:
        """Write and return dataset.json: the record, samples per set, samples and bytes of every file."""
        files = {
            name: {"bytes": (self.path / name).stat().st_size, "samples": self.shards.get(name, 0)}
            for name in files_below(self.path)
        }
        whole = {**record, "samples": self.samples, "shards": self.shards, "files": files}
        self.write_text(RECORD, dump_json(whole, indent=1) + "\n")
        return whole


def dump_json(value: object, indent: int | None = None) -> str:
    """As JSON for a shard."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def add_sample(shard: tarfile.TarFile, key: str, members: Mapping[str, bytes]) -> None:
    """In order of extension, without timestamp or user name."""
    for extension in sorted(members):
        member = tarfile.TarInfo(f"{key}.{extension}")
        member.size, member.mode = len(members[extension]), 0o444
        member.uname = member.gname = "prolip"
        shard.addfile(member, io.BytesIO(members[extension]))


def _members(sample: Sample) -> dict[str, bytes]:
    members = {sample.extension: sample.image, "json": dump_json(sample.record).encode()}
    if sample.caption is not None:
        members["txt"] = sample.caption.encode()
    return members


def files_below(folder: Path) -> list[str]:
    """As sorted relative paths."""
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(path.relative_to(folder).as_posix() for path in found)


@contextmanager
def replace_folder(out: Path, patterns: Sequence[str] = OUR_FILES) -> Iterator[ShardFolder]:
    """Yield a temporary folder, which replaces `out` if the block succeeds."""
    check_replaceable(out, patterns)
    out.parent.mkdir(parents=True, exist_ok=True)
    staging, old = (out.with_name(f".{out.name}.{role}-{uuid4().hex[:8]}") for role in ("building", "old"))
    try:
        staging.mkdir()
    except OSError as error:
        raise UserError(out, str(error.strerror).lower()) from error
    try:
        with writing(out):
            yield ShardFolder(staging)
        if out.exists():
            out.rename(old)
        staging.rename(out)
    finally:
        if old.exists() and not out.exists():  # interrupted between the two renames
            old.rename(out)
        shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def check_replaceable(out: Path, patterns: Sequence[str] = OUR_FILES) -> None:
    """Check that all files in `out` are a builder's: their paths match `patterns`."""
    # The option is `out` of `prolip data build` and `data` of `prolip demo`, so errors name the folder.
    if not out.exists():
        check_writable(out)
        return
    check(out.is_dir(), out, "must be a folder; name a new or empty one")
    files = files_below(out)
    # Somebody's shards may have our names, but not our record of them.
    foreign = [name for name in files if RECORD not in files or not any(_fits(name, pattern) for pattern in patterns)]
    if foreign:
        raise UserError(out, "must hold only what a builder wrote; name a new or empty folder", f"{foreign[0]!r}")


def _fits(name: str, pattern: str) -> bool:
    """Here `*` does not match a slash."""
    parts, wanted = name.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatch, parts, wanted))


def read_complete(out: Path, fingerprint: str) -> dict[str, object] | None:
    """Its record if it has this fingerprint and all files have the recorded size; else None."""
    try:
        record = json.loads((out / RECORD).read_text(encoding="utf-8"))
        whole = record["fingerprint"] == fingerprint and all(
            (out / name).stat().st_size == entry["bytes"] for name, entry in record["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return record if whole else None


def hash_rank(seed: int, text: str) -> int:
    """A hash in [0, 2^64), the same on every machine."""
    return int.from_bytes(hashlib.sha256(f"{seed} {text}".encode()).digest()[:8], "big")
