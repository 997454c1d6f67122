"""Embed shards, folders of images and text files into part files, here or on Ray (`prolip embed`).

An input is a shard, or a fixed number of images of a folder or lines of a text file. Each becomes one part file per
kind. Parts do not depend on where they are made, and a finished part is not embedded again. B batch, D dimensions.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from prolip.data import (
    Batch,
    BatchLoader,
    CaptionConfig,
    CaptionSource,
    DataError,
    LoaderConfig,
    NoSampleError,
    StoreConfig,
    expand_shards,
    without_secrets,
)
from prolip.data.build.folder import find_images
from prolip.data.config import TokenizerConfig
from prolip.data.device import DeviceBatches, device_batches
from prolip.data.samples import EXTENSIONS, captions_at
from prolip.data.selection import read_selection
from prolip.distributed import find_device
from prolip.embeddings.config import EmbedOptions, Kind
from prolip.embeddings.embed import embed_captions
from prolip.embeddings.engine import Report, run_units
from prolip.embeddings.row_contents import read_lines
from prolip.embeddings.storage import MANIFEST, Manifest, Part, PartNotes, Rows, Settings, part_name, write_part
from prolip.errors import UserError, check, check_at_least, printable, sentence
from prolip.folders import Folder
from prolip.gaussian import Gaussian, concatenate
from prolip.inference.forward import evaluating, on_cpu
from prolip.inference.image_batches import decoded_ahead, encoded_image
from prolip.inference.load_model import load
from prolip.inference.model import Model, weights_digest
from prolip.inference.preprocess import pixel_size
from prolip.models.official_json import to_official_json
from prolip.models.precision import autocast, has_bf16
from prolip.pretrained.sources import absolute_source

KINDS: dict[str, tuple[Kind, ...]] = {"image": ("image",), "text": ("text",), "both": ("image", "text")}
NAMED = 20
"""Maximum number of unusable samples that are described per part."""
_MOST_NAMED = 1000
"""Maximum number of unusable samples that the manifest describes."""
_READERS = 32
"""Threads that read the notes of parts, which takes requests to an object store."""
_LONG = 60
"""Seconds of a run from which on its speed matters."""
Item = TypeVar("Item")

# ---- Inputs ---------------------------------------------------------------------------------------------------------


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
    cut = _cut(items, size)
    return [Input(form=form, address=str(path), items=some, first=first, stamp=stamp) for first, some in cut]


def _cut(items: Sequence[Item], size: int) -> Iterator[tuple[int, tuple[Item, ...]]]:
    for first in range(0, len(items), size):
        yield first, tuple(items[first : first + size])


# ---- Embedding one input --------------------------------------------------------------------------------------------


class Started(NamedTuple):
    """A loader whose threads work already."""

    loader: BatchLoader
    batches: Iterator[Batch] | DeviceBatches
    """On the model's device, if it reads the loader's images."""


class _Sample(NamedTuple):
    key: str
    row: int
    """Its place in the source."""
    image: bytes | Path
    members: Mapping[str, bytes | None]
    """The txt or json with the caption."""


@dataclass
class PartRows:
    """Rows of an input, so far."""

    stamp: str
    """The source's; that of a shard is known after it was read."""
    keys: list[str] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    """Places in the source."""
    sizes: list[Sequence[int]] = field(default_factory=list)
    """Width and height of each image; 0 without one."""
    found: dict[Kind, list[Gaussian]] = field(default_factory=dict)
    records: list[bytes | None] = field(default_factory=list)
    """The samples' JSON, if `Embedder.keep` names it."""
    bad: int = 0
    named: list[str] = field(default_factory=list)
    wait_seconds: float = 0.0

    def add(
        self,
        keys: Sequence[str],
        places: Iterable[int],
        sizes: Iterable[Sequence[int]],
        found: dict[Kind, Gaussian],
        records: Sequence[bytes | None] = (),
    ) -> None:
        """Append the rows of a batch."""
        self.keys.extend(keys)
        self.places.extend(places)
        self.sizes.extend(sizes)
        self.records.extend(records)
        for kind, gaussian in found.items():
            self.found.setdefault(kind, []).append(on_cpu(gaussian))


class Made(NamedTuple):
    """What became of an input."""

    notes: list[PartNotes]
    """Of its parts."""
    seconds: float = 0.0
    """How long its thread used the model."""
    wait_seconds: float = 0.0
    """How long the model waited for data meanwhile."""


@dataclass(frozen=True)
class Embedder:
    """A process's model and settings."""

    options: EmbedOptions
    model: Model
    dim: int
    """D."""
    on_progress: Report = lambda _: None
    """Called with the number of rows of each batch."""
    keep: tuple[str, ...] = ()
    """Members of a shard's samples to keep."""
    lock: Lock = field(default_factory=Lock)
    """Held by the thread that uses the model."""

    @property
    def out(self) -> Folder:
        """The folder of the parts."""
        return Folder(self.options.out)

    def open(self, source: Input) -> Started | None:
        """Open a shard, so that its samples are prefetched; None for an input without a sample or of files.

        Raises:
            DataError: the shard is missing or is not an archive.
        """
        if source.form != "shard":
            return None
        options, network = self.options, self.model.prolip
        texts = options.what != "image"
        beside = ["txt" if options.caption_key == "txt" else "json"] if texts else []
        slot = CaptionConfig(sources=(CaptionSource(key=options.caption_key),))
        config = LoaderConfig(
            shards=(source.address,),
            batch_size=options.batch_size,
            image_size=0 if network is None else self.model.preprocess.size[0],
            native=None if network is None else self.model.preprocess.native(options.batch_size),
            captions=(slot,) if texts and network is not None else (),
            tokenizer=self.model.require_tokenizer().config if texts and network is not None else TokenizerConfig(),
            keep_members=(*self.keep, *((*EXTENSIONS, *beside) if network is None else ())),
            shuffle_window=0,
            last_batch="keep",
            num_threads=options.threads,
            max_bad_fraction=1.0,
            store=options.store,
            selection=options.selection if source.chosen else None,
        )
        try:
            loader = BatchLoader(config)
        except NoSampleError:
            return None
        return Started(loader, iter(loader) if network is None else device_batches(loader, self.model.device))

    def embed(self, source: Input, started: Started | None) -> PartRows:
        """Embed an input, whose shard is open."""
        rows, options = PartRows(stamp=source.stamp), self.options
        if source.form == "path":
            places = range(source.first, source.first + len(source.items))
            texts = embed_captions(self.model, source.items, options.batch_size, on_progress=self.on_progress)
            rows.add([*map(str, places)], places, [(0, 0)] * len(places), {"text": texts})
        elif source.form == "folder":
            self._embed_decoded(source, self._of_folder(source), rows)
        elif started is not None:
            if isinstance(started.batches, DeviceBatches):
                self._embed_loaded(started.batches, rows)
            else:
                self._embed_decoded(source, self._of_shard(started.batches), rows)
            stats = started.loader.stats()
            rows.bad += sum(stats.bad.values())
            rows.named[:0] = stats.bad_samples
            (rows.stamp,) = started.loader.stamps()
            started.loader.close()
        return rows

    def _embed_loaded(self, batches: DeviceBatches, rows: PartRows) -> None:
        device, kinds, network = self.model.device, KINDS[self.options.what], self.model.prolip
        assert network is not None
        with evaluating(network):
            for batch in batches:
                found: dict[Kind, Gaussian] = {}
                with autocast(self.options.precision, device):
                    if "image" in kinds:
                        found["image"] = network.encode_image(batch.images)
                    if "text" in kinds:
                        found["text"] = network.encode_text(batch.token_ids[0])
                places, sizes = batch.rows.tolist(), batch.sizes.tolist()
                rows.add(batch.keys, places, sizes, found, batch.members.get("json", ()))
                self.on_progress(len(batch.keys))
        rows.wait_seconds = batches.wait_seconds

    def _of_shard(self, batches: Iterable[Batch]) -> Iterator[list[_Sample]]:
        for batch in batches:
            yield [
                _Sample(
                    key,
                    int(batch.rows[row]),
                    encoded_image(batch, row),
                    {name: found[row] for name, found in batch.members.items()},
                )
                for row, key in enumerate(batch.keys)
            ]

    def _of_folder(self, source: Input) -> Iterator[list[_Sample]]:
        for first, names in _cut(source.items, self.options.batch_size):
            paths = [Path(source.address) / name for name in names]
            texts = [text.read_bytes() if (text := path.with_suffix(".txt")).is_file() else None for path in paths]
            yield [
                _Sample(name, row, path, {"txt": text})
                for row, (name, path, text) in enumerate(zip(names, paths, texts, strict=True), source.first + first)
            ]

    def _embed_decoded(self, source: Input, samples: Iterable[list[_Sample]], rows: PartRows) -> None:
        """Embed samples that the model's own preprocessing and tokenizer take."""
        kinds, preprocess = KINDS[self.options.what], self.model.preprocess
        caption_key = self.options.caption_key if source.form == "shard" else "txt"

        def decode(sample: _Sample) -> tuple[Tensor | None, tuple[int, int], str] | Exception:
            try:
                captions = captions_at(sample.key, sample.members, caption_key) if "text" in kinds else [""]
                if not captions:
                    return DataError(f"it has no caption at {caption_key!r}")
                if "image" not in kinds:
                    return None, (0, 0), captions[0]
                size = pixel_size(sample.image, turned=preprocess.image_seq_len is not None)
                return preprocess(sample.image), size, captions[0]
            except (DataError, UserError) as error:
                return error

        begun = time.perf_counter()
        for decoded in decoded_ahead(samples, decode, self.options.threads):
            lost = [(sample.key, found) for sample, found in decoded if isinstance(found, Exception)]
            rows.bad += len(lost)
            rows.named += [printable(f"{source.source}: {key}: {why}") for key, why in lost][: NAMED - len(rows.named)]
            rows.wait_seconds += time.perf_counter() - begun
            usable = [
                (sample.key, sample.row, sample.members.get("json"), *found)
                for sample, found in decoded
                if not isinstance(found, Exception)
            ]
            if usable:
                keys, places, records, pixels, sizes, captions = zip(*usable, strict=True)
                with self.model.running():
                    encoded: dict[Kind, Gaussian] = {}
                    if "image" in kinds:
                        encoded["image"] = self.model.encode_pixels(preprocess.batch(pixels, self.model.device))
                    if "text" in kinds:
                        encoded["text"] = self.model.encode_captions(captions)
                    rows.add(keys, places, sizes, encoded, records)
                self.on_progress(len(keys))
            begun = time.perf_counter()

    def embed_part(self, unit: tuple[int, Input]) -> Made:
        """Embed the input with this number and write its parts, unless another attempt has. Threads may do so at once.

        While one of them uses the model, the next one opens its shard, or writes its parts.
        """
        number, source = unit
        parts = [Part(self.out, part_name(kind, number)) for kind in self.kinds(source)]
        if all(self.out.exists(part.name) for part in parts):
            return Made([part.notes for part in parts])
        started = self.open(source)
        with self.lock:
            begun = time.perf_counter()
            rows = self.embed(source, started)
            seconds = time.perf_counter() - begun
        return Made(self._write(number, source, rows), seconds, rows.wait_seconds)

    def _write(self, number: int, source: Input, rows: PartRows) -> list[PartNotes]:
        written: list[PartNotes] = []
        nothing = Gaussian(torch.zeros(0, self.dim), torch.zeros(0, self.dim))
        for kind in self.kinds(source):
            whole = concatenate(rows.found.get(kind, [nothing]))
            part = Rows(
                rows.keys,
                np.array(rows.places, np.uint32),
                whole.mean.numpy(),
                whole.log_var.numpy(),
                np.array(rows.sizes, np.int32).reshape(-1, 2),
            )
            notes = PartNotes(
                number=number,
                kind=kind,
                source=source.source,
                stamp=rows.stamp,
                rows=len(rows.keys),
                bad=rows.bad,
                named=tuple(rows.named),
            )
            write_part(self.out, part, notes, self.options.dtype, log_var=self.options.log_var)
            written.append(notes)
        return written

    def kinds(self, source: Input) -> tuple[Kind, ...]:
        """The kinds of an input's parts."""
        return ("text",) if source.form == "path" else KINDS[self.options.what]


# ---- The command ----------------------------------------------------------------------------------------------------


def run_embed(options: EmbedOptions) -> list[str]:
    """Embed the parts that do not exist yet, and return the lines to print.

    Raises:
        UserError: a setting, the model or the data cannot be used, or `out` holds other embeddings.
        DataError: a part failed three times, such as a shard that is no archive; or no sample could be used.
    """
    if not (options.shards or options.selection or options.images or options.lines):
        raise UserError("shards", "must be given, or --selection, --images or --lines")
    check_at_least(1, rows_per_part=options.rows_per_part, batch_size=options.batch_size)
    check_at_least(0, threads=options.threads)
    check(
        "" not in options.caption_key.split("."),
        "caption_key",
        "must be `txt` or a dotted path into the json",
        f"{options.caption_key!r}",
    )
    inputs = plan_inputs(
        options.shards, options.images, options.lines, options.rows_per_part, options.store, options.selection
    )
    out = Folder(options.out)
    out.check_own(MANIFEST)
    model = load(options.checkpoint, tokenizer=options.tokenizer, device="cpu", precision=options.precision)
    if options.lines or options.what != "image":
        model.tokenize("")  # raises before anything is embedded if the tokenizer is unknown
    dim = model.prolip.config.embed_dim if model.prolip else model.encode_texts("").mean.shape[1]
    if options.engine.on:  # the cores of an actor, not of its machine
        options = replace(options, threads=options.threads or max(1, int(options.engine.num_cpus)))
    manifest, numbers, made = _prepare(Embedder(options, model, dim), inputs)
    units = [unit for unit in zip(numbers, inputs, strict=True) if unit[0] not in made]
    begun, samples, busy, waited = time.perf_counter(), 0, 0.0, 0.0
    for place, (notes, seconds, wait) in run_units(
        units,
        partial(_start, options, model, dim),
        options.engine,
        verb="embedded",
        name=lambda unit: unit[1].source,
        threads=2,
    ):
        if not (out.is_remote or out.exists(part_name(notes[0].kind, notes[0].number))):
            raise UserError("out", "must be a folder that all nodes share, or in an object store", options.out)
        made[units[place][0]] = notes
        samples, busy, waited = samples + notes[0].rows, busy + seconds, waited + wait
    seconds = time.perf_counter() - begun
    if units:
        share = waited / max(busy, 1e-9)
        manifest = replace(manifest, run={"samples": samples, "seconds": seconds, "wait_share": share})
    manifest = _finish(options, manifest, [notes for number in sorted(made) for notes in made[number]])
    lines = [
        f"{options.out}: {', '.join(f'{kind} rows: {rows:,}' for kind, rows in manifest.rows.items())}, parts: "
        f"{len(inputs):,} ({len(units):,} new)"
    ]
    if units:
        lines.append(f"{samples / seconds:,.1f} samples/s; the model waited for data {share:.1%} of the time")
        on_cpu = find_device(options.device).type == "cpu" and options.precision == "fp32"
        if on_cpu and seconds > _LONG and has_bf16(torch.device("cpu")):
            lines.append("this CPU has bf16 instructions: --precision bf16 may be two to three times as fast")
    if manifest.bad:
        lines += [f"unusable samples: {manifest.bad:,}", *(f"  {name}" for name in manifest.bad_samples[:NAMED])]
    return lines


def _start(options: EmbedOptions, model: Model, dim: int, report: Report) -> Callable[[tuple[int, Input]], Made]:
    """Move the model to this process's device."""
    device = find_device(options.device)
    model.network.to(device)
    return Embedder(options, replace(model, device=device), dim, report).embed_part


def _prepare(embedder: Embedder, inputs: Sequence[Input]) -> tuple[Manifest, list[int], dict[int, list[PartNotes]]]:
    """Write the manifest, and return it, the inputs' numbers, and the notes of the parts that exist by these numbers.

    An input has the number that an earlier run gave it, so that one whose part failed can be left out.
    """
    options, model, out = embedder.options, embedder.model, embedder.out
    manifest = Manifest(
        checkpoint=absolute_source(options.checkpoint),
        weights=weights_digest(model.network),
        tokenizer=options.tokenizer,
        model=to_official_json(model.prolip.config) if model.prolip else {"network": type(model.network).__name__},
        dim=embedder.dim,
        dtype=options.dtype,
        log_var=options.log_var,
        has_variances=model.has_variances,
        epistemic=model.epistemic,
        logit_scale=model.logit_scale,
        logit_bias=model.logit_bias,
        settings=Settings(what=options.what, caption_key=options.caption_key, precision=options.precision),
        plan=[],
    )
    there, plan = out.list(), list[dict[str, Any]]()
    if MANIFEST in there:
        old = Manifest.read(out)
        names = ["weights", "model", "dtype", "log_var", "settings"]
        if options.what != "image" or options.lines:
            names.append("tokenizer")
        for name in names:
            check(
                getattr(old, name) == getattr(manifest, name),
                "out",
                f"must hold embeddings with the same {name}; name another folder",
                options.out,
            )
        manifest, plan = replace(manifest, run=old.run), old.plan
    known = defaultdict[str, deque[int]](deque)
    for number, entry in enumerate(plan):
        known[repr(entry)].append(number)
    numbers = list[int]()
    for source in inputs:
        same = known[repr(entry := source.entry())]
        if not same:
            same.append(len(plan))
            plan.append(entry)
        numbers.append(same.popleft())
    for number in chain(*known.values()):
        check(
            there.isdisjoint(part_name(kind, number) for kind in KINDS["both"]),
            "out",
            "must hold embeddings of the same data; name another folder, or the same unchanged "
            "shards, folders and files, and the same rows_per_part",
            options.out,
        )
    manifest = replace(manifest, plan=plan)
    manifest.write(out)
    parts = {
        number: parts
        for number, source in zip(numbers, inputs, strict=True)
        if there.issuperset(parts := [part_name(kind, number) for kind in embedder.kinds(source)])
    }
    with ThreadPoolExecutor(_READERS) as pool:
        notes = pool.map(lambda names: [Part(out, name).notes for name in names], parts.values())
        return manifest, numbers, dict(zip(parts, notes, strict=True))


def _finish(options: EmbedOptions, manifest: Manifest, made: Sequence[PartNotes]) -> Manifest:
    """Write the manifest of all parts, and return it."""
    rows: Counter[str] = Counter()
    for notes in made:
        rows[notes.kind] += notes.rows
    parts = {
        part_name(notes.kind, notes.number): notes.rows
        for kind in KINDS["both"]
        for notes in made
        if notes.kind == kind
    }
    # The parts of an input have the same unusable samples.
    of_input = {notes.number: notes for notes in made}.values()
    bad, named = sum(notes.bad for notes in of_input), [name for notes in of_input for name in notes.named]
    if not rows.total():
        for name in (*parts, MANIFEST):  # they would refuse a run with other settings
            Folder(options.out).delete(name)
        raise DataError(f"none of {bad} samples could be used; the first: {'; '.join(named[:3])}")
    manifest = replace(manifest, complete=True, parts=parts, rows=dict(rows), bad=bad, bad_samples=named[:_MOST_NAMED])
    manifest.write(Folder(options.out))
    return manifest
