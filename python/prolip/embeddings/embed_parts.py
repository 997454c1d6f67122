"""Embed shards, folders of images and text files into part files, with any number of processes (`prolip embed`).

Part files do not depend on the number of processes. A finished part is not embedded again, unless its files changed.
"""

from __future__ import annotations

import logging
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from prolip.data import CaptionConfig, CaptionSource, DataError, LoaderConfig, without_secrets
from prolip.data.config import TokenizerConfig
from prolip.data.device import DeviceBatch, DeviceBatches, device_batches
from prolip.distributed import Ranks, failing_at_once, start
from prolip.embeddings.config import EmbedOptions, Format, Kind
from prolip.embeddings.embed import embed_captions
from prolip.embeddings.encoded_batches import EncodedBatches, reading_config
from prolip.embeddings.input_parts import (
    FolderPart,
    InputPart,
    LinesPart,
    PartEnd,
    Reading,
    ShardPart,
    describe,
    plan_parts,
)
from prolip.embeddings.parquet import has_parquet, parquet
from prolip.embeddings.storage import MANIFEST, Manifest, Part, PartNotes, Rows, part_name, write_part
from prolip.errors import UserError, check_at_least
from prolip.files import check_own_folder
from prolip.gaussian import Gaussian, concatenate
from prolip.models.adapter import AdaptedNetwork
from prolip.models.official_json import to_official_json
from prolip.models.precision import autocast
from prolip.pretrained.forward import evaluating, on_cpu
from prolip.pretrained.model import Model, weights_digest
from prolip.pretrained.open import load
from prolip.pretrained.preprocess import square_image_size

log = logging.getLogger(__name__)

KINDS: dict[str, tuple[Kind, ...]] = {"image": ("image",), "text": ("text",), "both": ("image", "text")}
_PATIENCE = timedelta(days=7)
"""How long a process waits for the others, which may have much more to do."""


class Timing(NamedTuple):
    """Work and time of a process."""

    samples: int
    """Samples embedded."""
    seconds: float
    """Total time."""
    waited: float
    """Time in which the model waited for data."""


@dataclass(frozen=True)
class Embedder:
    """A process's model and output settings."""

    options: EmbedOptions
    format: Format
    model: Model
    dim: int
    ranks: Ranks

    def loading(self) -> LoaderConfig:
        """The loader's configuration."""
        options, network = self.options, self.model.prolip
        if network is None:
            return reading_config(options)
        text = options.what != "image"
        captions = (CaptionConfig(sources=(CaptionSource(key=options.caption_key),)),)
        return LoaderConfig(
            shards=(),
            batch_size=options.batch_size,
            image_size=square_image_size(network),
            captions=captions if text else (),
            tokenizer=self.model.require_tokenizer().config if text else TokenizerConfig(),
            num_threads=options.threads,
            store=options.store,
        )

    def write(self, number: int, kind: Kind, keys: list[str], source: str, found: list[Gaussian], end: PartEnd) -> None:
        """Write a part file."""
        options, dim = self.options, self.dim
        whole = concatenate(found) if found else Gaussian(torch.zeros(0, dim), torch.zeros(0, dim))
        rows = Rows(keys, [source] * len(keys), whole.mean.numpy(), whole.log_var.numpy())
        notes = PartNotes(number=number, kind=kind, rows=len(keys), bad=end.bad, named=end.named)
        write_part(options.out, rows, notes, self.format, options.dtype)


def run_embed(options: EmbedOptions) -> list[str]:
    """Embed the parts that do not exist yet, and return the lines to print ([] on ranks other than 0).

    Raises:
        UserError: a setting, the model or the data cannot be used, or `out` holds other embeddings.
        DataError: a shard is missing or is not an archive; or no sample could be used.
    """
    if not (options.shards or options.images or options.lines):
        raise UserError(
            "nothing to embed: name shards (--shards), folders of images (--images) or text files (--lines)"
        )
    check_at_least(1, rows_per_part=options.rows_per_part, batch_size=options.batch_size)
    check_at_least(0, threads=options.threads)
    if "" in options.caption_key.split("."):
        raise UserError(f"caption_key is {options.caption_key!r}: it must be `txt` or a dotted path into the json")
    form = _format(options)
    if form == "parquet":
        parquet()  # raises before anything is embedded if pyarrow is missing
    parts = plan_parts(options.shards, options.images, options.lines, options.rows_per_part, options.store)
    check_own_folder(options.out, MANIFEST)
    model = load(options.checkpoint, tokenizer=options.tokenizer, device="cpu", precision=options.precision)
    if options.lines or options.what != "image":
        model.tokenize("")  # raises before anything is embedded if the tokenizer is unknown
    dim = model.prolip.config.embed_dim if model.prolip else model.encode_texts("").mean.shape[1]
    ranks = start(options.device, _PATIENCE)
    with failing_at_once("prolip embed", log, ranks):
        model.network.to(ranks.device)
        return _run(Embedder(options, form, replace(model, device=ranks.device), dim, ranks), parts)


def _format(options: EmbedOptions) -> Format:
    """Return the requested format, else that of the existing parts, else Parquet if it can be written."""
    if options.format is not None:
        return options.format
    if (options.out / MANIFEST).exists():
        return Manifest.read(options.out).format
    return "parquet" if has_parquet() else "safetensors"


def _run(embedder: Embedder, parts: Sequence[InputPart]) -> list[str]:
    options, ranks = embedder.options, embedder.ranks
    missing = ranks.broadcast(_prepare(embedder, parts) if ranks.rank == 0 else [])
    mine = [(number, parts[number]) for number in missing[ranks.rank :: ranks.world_size]]
    with tqdm(desc="embedded", unit="sample", file=sys.stderr, disable=ranks.rank != 0) as bar:
        timings = [_embed_data(embedder, mine, bar), _embed_lines(embedder, mine, bar)]
    gathered = ranks.gather(timings)
    if ranks.rank != 0:
        return []
    made = len(missing)
    return _summary(options, _finish(embedder, parts, gathered, made), made)


def _prepare(embedder: Embedder, parts: Sequence[InputPart]) -> list[int]:
    """Write the manifest, and return the numbers of the missing parts.

    Raises:
        UserError: the folder holds embeddings of another model or of other data.
    """
    options = embedder.options
    manifest = Manifest(
        checkpoint=options.checkpoint,
        weights=weights_digest(embedder.model.network),
        tokenizer=options.tokenizer,
        model=_architecture(embedder.model),
        dim=embedder.dim,
        format=embedder.format,
        dtype=options.dtype,
        has_variances=embedder.model.has_variances,
        epistemic=embedder.model.epistemic,
        logit_scale=embedder.model.logit_scale,
        logit_bias=embedder.model.logit_bias,
        settings={"what": options.what, "caption_key": options.caption_key, "precision": options.precision},
        plan=[describe(part) for part in parts],
    )
    if (options.out / MANIFEST).exists():
        old = Manifest.read(options.out)
        _check_same(old, manifest, options.out)
        for number, (before, now) in enumerate(zip(old.plan, manifest.plan, strict=False)):
            if before.get("files", now["files"]) != now["files"]:  # its files have changed: it is embedded again
                for kind in _kinds(parts[number], options):
                    (options.out / part_name(kind, number, embedder.format)).unlink(missing_ok=True)
        manifest = replace(manifest, run=old.run)
    options.out.mkdir(parents=True, exist_ok=True)
    manifest.write(options.out)
    return [
        number
        for number, part in enumerate(parts)
        if not all((options.out / part_name(kind, number, embedder.format)).exists() for kind in _kinds(part, options))
    ]


def _architecture(model: Model) -> dict[str, Any]:
    """Return the manifest's entry for a model: its architecture, or for other networks the type and preprocessing."""
    if model.prolip is not None:
        return to_official_json(model.prolip.config)
    pixels = model.preprocess
    names = ("size", "mean", "std", "resize_mode", "interpolation")
    shape = {name: list(value) if isinstance(value := getattr(pixels, name), tuple) else value for name in names}
    kind = "adapted" if isinstance(model.network, AdaptedNetwork) else "open_clip"
    return {kind: type(model.network).__name__, "preprocess": shape}


def _check_same(old: Manifest, new: Manifest, out: Path) -> None:
    if (old.weights, old.model) != (new.weights, new.model):
        raise UserError(f"out: {out} holds embeddings of another model: name another folder")
    has_texts = new.settings["what"] != "image" or new.has_lines
    before, after = (
        {"format": one.format, "dtype": one.dtype, "tokenizer": one.tokenizer, **one.settings} for one in (old, new)
    )
    for name, now in after.items():
        if before.get(name) != now and (has_texts or name != "tokenizer"):
            raise UserError(
                f"out: {out} holds embeddings with another --{name} ({before.get(name)}, not {now}): name another "
                "folder"
            )
    inputs = [[{**part, "files": None} for part in plan] for plan in (old.plan, new.plan[: len(old.plan)])]
    if inputs[0] != inputs[1]:
        raise UserError(
            f"out: {out} holds embeddings of other data: name another folder, or begin with the same shards, folders "
            "and files and keep rows_per_part"
        )


def _kinds(part: InputPart, options: EmbedOptions) -> tuple[Kind, ...]:
    return ("text",) if isinstance(part, LinesPart) else KINDS[options.what]


def _embed_data(embedder: Embedder, mine: Sequence[tuple[int, InputPart]], bar: tqdm[Any]) -> Timing:
    """Embed the parts that are shards or folders."""
    options = embedder.options
    numbers = [number for number, part in mine if not isinstance(part, LinesPart)]
    parts = [part for _, part in mine if not isinstance(part, LinesPart)]
    if not parts:
        return Timing(0, 0.0, 0.0)
    count, begun = 0, time.perf_counter()
    collected: dict[int, _Collected] = {}
    with (
        Reading(parts, embedder.loading(), options.out / f".reading-{embedder.ranks.rank}") as reading,
        evaluating(embedder.model.network),
    ):
        batches, source = _batches(embedder, reading)
        written = 0

        def write_finished() -> None:
            """Write the parts whose batches are all embedded."""
            nonlocal written
            while written in reading.ends and written not in reading.places:
                # The rows are dropped last: if Ctrl-C comes in between, the part is complete or missing.
                rows = collected.get(written, _Collected([], {}))
                _write_part(embedder, numbers[written], parts[written], rows, reading.end(written))
                written += 1
                collected.pop(written - 1, None)

        try:
            for keys, found in batches:
                write_finished()
                collected.setdefault(reading.places[0], _Collected([], {})).add(keys, found)
                reading.places.popleft()
                count += len(keys)
                bar.update(len(keys))
        finally:
            write_finished()
        waited = source.wait_seconds
    return Timing(count, time.perf_counter() - begun, waited)


def _batches(
    embedder: Embedder, reading: Reading
) -> tuple[Iterable[tuple[list[str], dict[str, Gaussian]]], DeviceBatches | EncodedBatches]:
    """Return keys and Gaussians, batch by batch, and the object that knows how long the model waited for data."""
    options, network = embedder.options, embedder.model.prolip
    if network is None:
        encoded = EncodedBatches(embedder.model, reading, options)
        return encoded, encoded

    def embed(batch: DeviceBatch) -> dict[str, Gaussian]:
        found: dict[str, Gaussian] = {}
        with autocast(options.precision, batch.images.device):
            if options.what != "text":
                found["image"] = on_cpu(network.encode_image(batch.images))
            if options.what != "image":
                found["text"] = on_cpu(network.encode_text(batch.token_ids[0]))
        return found

    source = device_batches(reading, embedder.ranks.device)
    return ((batch.keys, embed(batch)) for batch in source), source


class _Collected(NamedTuple):
    """Rows of a part, so far."""

    keys: list[str]
    found: dict[str, list[Gaussian]]

    def add(self, keys: list[str], found: dict[str, Gaussian]) -> None:
        self.keys.extend(keys)
        for kind, gaussian in found.items():
            self.found.setdefault(kind, []).append(gaussian)


def _write_part(
    embedder: Embedder, number: int, part: ShardPart | FolderPart, collected: _Collected, end: PartEnd
) -> None:
    """Write the files of a part."""
    source = without_secrets(part.shard) if isinstance(part, ShardPart) else part.folder
    for kind in KINDS[embedder.options.what]:
        embedder.write(number, kind, collected.keys, source, collected.found.get(kind, []), end)


def _embed_lines(embedder: Embedder, mine: Sequence[tuple[int, InputPart]], bar: tqdm[Any]) -> Timing:
    """Embed the parts that are lines of text files."""
    count, begun = 0, time.perf_counter()
    for number, part in mine:
        if isinstance(part, LinesPart):
            size = embedder.options.batch_size
            found = embed_captions(embedder.model, part.captions, size, on_progress=bar.update)
            keys = [str(part.first + line) for line in range(len(part.captions))]
            embedder.write(number, "text", keys, part.path, [found], PartEnd(0, ()))
            count += len(keys)
    return Timing(count, time.perf_counter() - begun, 0.0)


def _finish(embedder: Embedder, parts: Sequence[InputPart], timings: Sequence[Sequence[Timing]], made: int) -> Manifest:
    """Write the manifest of all parts, and return it.

    Raises:
        DataError: no sample could be used.
    """
    options = embedder.options
    files: list[str] = []
    rows: dict[str, int] = {}
    bad, named = 0, list[str]()
    for kind in ("image", "text"):
        for number, part in enumerate(parts):
            if kind in _kinds(part, options):
                files.append(part_name(kind, number, embedder.format))
                notes = Part(options.out / files[-1]).notes
                rows[kind] = rows.get(kind, 0) + notes.rows
                if kind == _kinds(part, options)[0]:
                    bad += notes.bad
                    named += notes.named
    if not sum(rows.values()):
        for name in (*files, MANIFEST):  # they would refuse a run with other settings
            (options.out / name).unlink(missing_ok=True)
        _remove_scratch(options.out)
        raise DataError(f"none of {bad} samples could be used; the first: {'; '.join(named[:3])}")
    run = {
        "samples": sum(timing.samples for each in timings for timing in each),
        "seconds": max(sum(timing.seconds for timing in each) for each in timings),
        "wait_share": sum(each[0].waited for each in timings) / max(1e-9, sum(each[0].seconds for each in timings)),
        "processes": len(timings),
    }
    before = Manifest.read(options.out)
    manifest = replace(
        before, complete=True, parts=files, rows=rows, bad=bad, bad_samples=named, run=run if made else before.run
    )
    manifest.write(options.out)
    _remove_scratch(options.out)
    return manifest


def _remove_scratch(out: Path) -> None:
    for folder in out.glob(".reading-*"):
        shutil.rmtree(folder, ignore_errors=True)


def _counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _summary(options: EmbedOptions, manifest: Manifest, made: int) -> list[str]:
    counts = ", ".join(
        _counted(count, "image" if kind == "image" else "caption") for kind, count in manifest.rows.items()
    )
    lines = [f"{options.out}: {counts} in {_counted(len(manifest.plan), 'part')} ({made:,} new)"]
    run = manifest.run
    if made:
        rate = run["samples"] / max(run["seconds"], 1e-9)
        lines.append(
            f"{rate:,.1f} samples/s by {run['processes']} process(es); the model waited for data "
            f"{run['wait_share']:.1%} of the time"
        )
    if manifest.bad:
        lines.append(f"{_counted(manifest.bad, 'sample')} could not be used:")
        lines += [f"  {name}" for name in manifest.bad_samples[:20]]
    return lines
