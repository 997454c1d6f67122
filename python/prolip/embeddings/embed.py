"""Embed shards, folders of images and text files into part files, here or on Ray (`prolip embed`).

Each input becomes one part file per kind. Parts do not depend on where they are made, and a finished part is not
embedded again. D dimensions.
"""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch

from prolip.data import DataError, StoreConfig
from prolip.distributed import find_device
from prolip.embeddings.config import EmbedOptions, Kind
from prolip.embeddings.inputs import NAMED, EncodedInput, Input, embed_input, open_input, plan_inputs
from prolip.embeddings.storage import MANIFEST, Manifest, Part, PartNotes, Rows, Settings, part_name, write_part
from prolip.embeddings.threads_or_ray import Report, run_units
from prolip.errors import UserError, check, check_at_least
from prolip.gaussian import Gaussian
from prolip.inference.encoder import Encoded, Encoder
from prolip.inference.load_model import load
from prolip.inference.model import Model, weights_digest
from prolip.models.official_json import to_official_json
from prolip.pretrained.sources import absolute_source
from prolip.store.folder import Folder

KINDS: dict[str, tuple[Kind, ...]] = {"image": ("image",), "text": ("text",), "both": ("image", "text")}
_MOST_NAMED = 1000
"""Maximum number of unusable samples that the manifest describes."""
_READERS = 32
"""Threads that read the notes of parts, which takes requests to an object store."""

# ---- Parts ----------------------------------------------------------------------------------------------------------


class Made(NamedTuple):
    """What became of an input."""

    samples: int = 0
    """Embedded now."""
    seconds: float = 0.0
    """Time with the model."""
    wait_seconds: float = 0.0
    """The part of it that the model waited for data."""


@dataclass(frozen=True)
class PartMaker:
    """Embeds inputs into parts, with a process's model."""

    options: EmbedOptions
    model: Model
    weights: str
    """Digest of the model's tensors."""
    on_progress: Report = lambda _: None
    """Called with the number of rows of each batch."""
    lock: Lock = field(default_factory=Lock)
    """Held by the thread that uses the model."""

    @property
    def out(self) -> Folder:
        """The folder of the parts."""
        return Folder(self.options.out)

    @property
    def encoder(self) -> Encoder:
        """What to make of each sample."""
        options, kinds = self.options, KINDS[self.options.what]
        return replace(
            self.model.encoder,
            views=None if "image" in kinds else {},
            caption_keys=(options.caption_key,) if "text" in kinds else (),
            batch_size=options.batch_size,
            threads=options.threads,
            on_progress=self.on_progress,
        )

    def embed_part(self, unit: tuple[int, Input]) -> Made:
        """Embed the input with this number and write its parts, unless they exist. Threads may call it in parallel.

        While one of them uses the model, another opens its shard or writes its parts.
        """
        number, source = unit
        parts = [Part(self.out, part_name(kind, number)) for kind in self.kinds(source)]
        if all(self.out.exists(part.name) for part in parts):
            return Made()
        encoder = self.encoder
        started = open_input(encoder, source, self.options.store, self.options.selection)
        with self.lock:
            begun = time.perf_counter()
            found = embed_input(encoder, source, started)
            seconds = time.perf_counter() - begun
        self._write(number, source, found)
        return Made(len(found.rows.keys), seconds, found.rows.wait_seconds)

    def _write(self, number: int, source: Input, found: EncodedInput) -> None:
        rows = found.rows
        gaussians = {**rows.images, **({} if rows.text is None else {"text": rows.text.flatten()})}
        for kind in self.kinds(source):
            gaussian = gaussians.get(kind) or Gaussian.point(torch.zeros(0, self.model.embed_dim))
            part = Rows(
                rows.keys,
                np.array(rows.places, np.uint32),
                gaussian.mean.numpy(),
                gaussian.log_var.numpy(),
                np.array(rows.sizes, np.int32).reshape(-1, 2),
            )
            notes = PartNotes(
                number=number,
                kind=kind,
                source=source.source,
                stamp=found.stamp,
                weights=self.weights,
                rows=len(rows.keys),
                bad=found.bad,
                named=tuple(found.named),
            )
            write_part(self.out, part, notes, self.options.dtype, log_var=self.options.log_var)

    def kinds(self, source: Input) -> tuple[Kind, ...]:
        """Of an input's parts."""
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
    if (options.lines or options.what != "image") and isinstance(model.encoder.tokenizer, UserError):
        raise model.encoder.tokenizer
    if options.engine.on:  # the cores of an actor, not of its machine
        options = replace(options, threads=options.threads or max(1, int(options.engine.num_cpus)))
    weights = weights_digest(model.network)
    manifest, parts, there = _prepare(PartMaker(options, model, weights), inputs)
    units = [
        (number, source)
        for (number, names), source in zip(parts.items(), inputs, strict=True)
        if not there.issuperset(names)
    ]
    random.shuffle(units)  # other commands with this plan may be at work
    begun, samples, busy, waited = time.perf_counter(), 0, 0.0, 0.0
    for place, made in run_units(
        units,
        partial(_start, options, model, weights),
        options.engine,
        verb="embedded",
        name=lambda unit: unit[1].source,
        threads=2,
    ):
        if not (out.is_remote or out.exists(parts[units[place][0]][0])):
            raise UserError("out", "must be a folder that all nodes share, or in an object store", options.out)
        samples, busy, waited = samples + made.samples, busy + made.seconds, waited + made.wait_seconds
    seconds = time.perf_counter() - begun
    if units:
        share = waited / max(busy, 1e-9)
        manifest = replace(manifest, run={"samples": samples, "seconds": seconds, "wait_share": share})
    _check_same(options, Manifest.read(out), manifest)  # in a store two may have created it
    manifest = _finish(out, manifest, parts, inputs)
    lines = [
        f"{options.out}: {', '.join(f'{kind} rows: {rows:,}' for kind, rows in manifest.rows.items())}, parts: "
        f"{len(inputs):,} ({len(units):,} new)"
    ]
    if units:
        lines.append(f"{samples / seconds:,.1f} samples/s; the model waited for data {share:.1%} of the time")
    if manifest.bad:
        lines += [f"unusable samples: {manifest.bad:,}", *(f"  {name}" for name in manifest.bad_samples[:NAMED])]
    return lines


def _start(options: EmbedOptions, model: Model, weights: str, report: Report) -> Callable[[tuple[int, Input]], Made]:
    device = find_device(options.device)
    model.network.to(device)
    moved = replace(model, encoder=replace(model.encoder, device=device))
    return PartMaker(options, moved, weights, report).embed_part


def _prepare(maker: PartMaker, inputs: Sequence[Input]) -> tuple[Manifest, dict[int, list[str]], set[str]]:
    """Create the manifest, and return it, the names of the inputs' parts by the inputs' numbers, and the files there.

    Another command may have created it, with the same inputs; one whose part failed can be left out.
    """
    options, model, out = maker.options, maker.model, maker.out
    manifest = Manifest(
        checkpoint=absolute_source(options.checkpoint),
        weights=maker.weights,
        tokenizer=options.tokenizer,
        model=to_official_json(model.prolip.config) if model.prolip else {"network": type(model.network).__name__},
        dim=model.embed_dim,
        dtype=options.dtype,
        log_var=options.log_var,
        has_variances=model.has_variances,
        logit_scale=model.logit_scale,
        logit_bias=model.logit_bias,
        settings=Settings(what=options.what, caption_key=options.caption_key, precision=options.precision),
        plan=[source.entry() for source in inputs],
    )
    created = Manifest.of_json(out, out.create(MANIFEST, manifest.to_json()))
    _check_same(options, created, manifest)
    known, plan = defaultdict[str, deque[int]](deque), created.plan
    there, numbers = out.list(), list[int]()
    absent = [there.isdisjoint(part_name(kind, number) for kind in KINDS["both"]) for number in range(len(plan))]
    for number, entry in enumerate(plan):
        known[repr(entry | {"bytes": 0} if absent[number] else entry)].append(number)
    rule = (
        "must hold embeddings of the same data; name another folder, or the same unchanged shards, folders and files, "
        "and the same rows_per_part"
    )
    for entry in manifest.plan:
        same = known[repr(entry)] or known[repr(entry | {"bytes": 0})]  # a file that failed may be repaired
        check(same, "out", rule, options.out)
        numbers.append(number := same.popleft())
        plan[number] = entry
    check(all(absent[number] for number in chain(*known.values())), "out", rule, options.out)
    manifest = replace(manifest, plan=plan, run=created.run)
    parts = {
        number: [part_name(kind, number) for kind in maker.kinds(source)]
        for number, source in zip(numbers, inputs, strict=True)
    }
    return manifest, parts, there


def _check_same(options: EmbedOptions, created: Manifest, manifest: Manifest) -> None:
    """Check that a folder's manifest is of the same model and settings."""
    names = ["weights", "model", "dtype", "log_var", "settings"]
    if options.what != "image" or options.lines:
        names.append("tokenizer")
    for name in names:
        check(
            getattr(created, name) == getattr(manifest, name),
            "out",
            f"must hold embeddings with the same {name}; name another folder",
            options.out,
        )


def _finish(out: Folder, manifest: Manifest, parts: dict[int, list[str]], inputs: Sequence[Input]) -> Manifest:
    """Check that all parts are of these inputs and of the model's weights, write their manifest, and return it."""
    expected = {name: source.source for names, source in zip(parts.values(), inputs, strict=True) for name in names}
    names = sorted(expected, key=lambda name: (name[0], len(name), name))  # by kind and number
    with ThreadPoolExecutor(_READERS) as pool:
        made = [*pool.map(lambda name: Part(out, name).notes, names)]
    for name, notes in zip(names, made, strict=True):
        found = (notes.source, notes.weights)
        check(found == (expected[name], manifest.weights), out.at(name), "must be of this data and model", found)
    sizes, rows = {name: notes.rows for name, notes in zip(names, made, strict=True)}, Counter[str]()
    for notes in made:
        rows[notes.kind] += notes.rows
    # The parts of an input have the same unusable samples.
    of_input = {notes.number: notes for notes in made}.values()
    bad, named = sum(notes.bad for notes in of_input), [name for notes in of_input for name in notes.named]
    if not rows.total():
        for name in (*names, MANIFEST):  # they would refuse a run with other settings
            out.delete(name)
        raise DataError(f"none of {bad} samples could be used; the first: {'; '.join(named[:3])}")
    manifest = replace(manifest, complete=True, parts=sizes, rows=dict(rows), bad=bad, bad_samples=named[:_MOST_NAMED])
    manifest.write(out)
    return manifest


# ---- In memory ----


def embed_shards(
    model: Model,
    shards: Sequence[str],
    *,
    batch_size: int = 128,
    keep: Sequence[str] = (),
    store: StoreConfig | None = None,
    selection: str | None = None,
    on_progress: Callable[[int], object] | None = None,
) -> Encoded:
    """Embed all images of some shards, in order, with the model's own preprocessing. Unreadable images are left out.

    Args:
        shards: paths, addresses or patterns, or one of them.
        keep: extensions of members to keep.
        selection: path of a selection of their samples.

    Raises:
        UserError: there is no image.
        DataError: a shard is not an archive, or more than one image in a hundred is unreadable.
    """
    encoder = replace(model.encoder, keep=tuple(keep), batch_size=batch_size, on_progress=on_progress)
    return encoder.embed_shards(shards, store=store, selection=selection)
