"""Divide sources into inputs: a shard, or a fixed number of images of a folder or lines of a text file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from prolip.data import BatchLoader, NoSampleError, StoreConfig, expand_shards, without_secrets
from prolip.embeddings.originals import read_lines
from prolip.errors import UserError, check, printable, sentence
from prolip.images.files import find_images
from prolip.inference.encoder import Encoded, Encoder, Sample, in_batches, joined
from prolip.store.selection import read_selection

NAMED = 20
"""Maximum number of unusable samples that are described per input."""


@dataclass(frozen=True, kw_only=True)
class Input:
    """All samples of a shard, some images of a folder, or some lines of a text file, one caption each."""

    form: Literal["shard", "folder", "path"]
    """What `address` is; `path` for a text file."""
    address: str
    items: tuple[str, ...] = ()
    """Names of the images below the folder, or the captions."""
    first: int = 0
    """Place of the first item in the folder or file, from 0."""
    stamp: str = ""
    """Changes with the names of all images of the folder, or all lines; "" for a shard, whose loader knows it."""
    chosen: str = ""
    """Of a shard of a selection, a digest of the chosen rows."""

    @property
    def source(self) -> str:
        """The address without secrets, as rows name it."""
        return without_secrets(self.address) if self.form == "shard" else self.address

    def entry(self) -> dict[str, Any]:
        """The input's entry in the manifest. `bytes` tells most changes of files that keep their names."""
        path, files = Path(self.address), list[Path]()
        if self.form == "shard":
            files = [path]
        elif self.form == "folder":
            files = [file for name in self.items for file in (path / name, (path / name).with_suffix(".txt"))]
        entry = {self.form: self.source, "bytes": sum(file.stat().st_size for file in files if file.exists())}
        if self.form == "shard":
            return entry | ({"chosen": self.chosen} if self.chosen else {})
        return entry | {"stamp": self.stamp, "first": self.first, "count": len(self.items)}


def _stamp(items: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(items).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def plan_inputs(
    shards: Sequence[str],
    images: Sequence[Path],
    lines: Sequence[Path],
    rows_per_part: int,
    store: StoreConfig,
    selection: str | None = None,
) -> list[Input]:
    """Divide shards, a selection's shards, folders of images and text files into inputs, in this order."""
    inputs: list[Input] = []
    for name in shards:
        check(
            not name or not Path(name).is_dir(),
            "shards",
            f"must not be a folder; name '{name}/*.tar', or its images with --images",
        )
        inputs += [Input(form="shard", address=shard) for shard in expand_shards([name], store)]
    for one in () if selection is None else read_selection(selection):
        if one.repeats is not None:
            raise UserError("selection", "must not repeat samples", f"{selection}: {one.source}")
        digest = hashlib.sha256(one.rows.tobytes()).hexdigest()[:16]
        inputs.append(Input(form="shard", address=one.source, chosen=digest))
    for folder in images:
        check(folder.is_dir(), "images", "must be a folder", folder)
        names = [str(path.relative_to(folder)) for path in find_images(folder)]
        if not names:
            hint = f"; for its shards, write --shards '{folder}/*.tar'" if any(folder.glob("*.tar")) else ""
            raise UserError("images", f"must have an image{hint}", folder)
        for name in names:
            check(name.encode(errors="replace").decode() == name, "images", "names must be UTF-8", f"{name!r}")
        inputs += _cut_input("folder", folder, names, rows_per_part)
    for path in lines:
        try:
            captions = read_lines(path)
        except OSError as error:
            raise UserError("lines", sentence(error)) from error
        check(captions, "lines", "must have a line", path)
        inputs += _cut_input("path", path, captions, rows_per_part)
    return inputs


def _cut_input(form: Literal["folder", "path"], path: Path, items: Sequence[str], size: int) -> list[Input]:
    stamp = _stamp(items)
    return [
        Input(form=form, address=str(path), items=tuple(items[first : first + size]), first=first, stamp=stamp)
        for first in range(0, len(items), size)
    ]


# ---- Embedding one input --------------------------------------------------------------------------------------------


class Started(NamedTuple):
    """A shard whose samples are prefetched."""

    loader: BatchLoader
    rows: Iterator[Encoded]


class EncodedInput(NamedTuple):
    """The rows of an input."""

    rows: Encoded
    stamp: str
    """The source's."""
    bad: int = 0
    """Number of samples that cannot be used."""
    named: Sequence[str] = ()
    """Descriptions of the first of them."""


def open_input(encoder: Encoder, source: Input, store: StoreConfig, selection: str | None = None) -> Started | None:
    """Open a shard, so that its samples are prefetched; None for an input without a sample or of files."""
    if source.form != "shard":
        return None
    try:
        loader = encoder.loader([source.address], store=store, selection=selection if source.chosen else None)
    except NoSampleError:
        return None
    return Started(loader, encoder.of_loader(loader))


def embed_input(encoder: Encoder, source: Input, started: Started | None) -> EncodedInput:
    """Embed an input, whose shard is open. The caption of an image of a folder is in the txt beside it."""
    if source.form == "path":
        batches = encoder.of_captions(source.items, source.first)
    elif source.form == "folder":
        encoder = replace(encoder, caption_keys=("txt",) * len(encoder.caption_keys))
        batches = encoder.of_samples(in_batches(_of_folder(source), encoder.batch_size))
    else:
        batches = iter(()) if started is None else started.rows
    rows = joined(batches)
    named = [printable(f"{source.source}: {bad.key}: {bad.error}") for bad in rows.bad[:NAMED]]
    if started is None:
        return EncodedInput(rows, source.stamp, len(rows.bad), named)
    stats, (stamp,) = started.loader.stats(), started.loader.stamps()
    started.loader.close()
    return EncodedInput(rows, stamp, len(rows.bad) + sum(stats.bad.values()), [*map(str, stats.bad_samples), *named])


def _of_folder(source: Input) -> Iterator[Sample]:
    for place, name in enumerate(source.items, source.first):
        path = Path(source.address, name)
        text = path.with_suffix(".txt")
        yield Sample(name, place, path, {"txt": text.read_bytes() if text.is_file() else None})
