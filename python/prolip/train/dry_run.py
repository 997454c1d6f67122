"""`prolip recipes` and `prolip train --dry-run`: estimate the cost of a run, and check it without starting it."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from operator import attrgetter

import torch

from prolip.data import BatchLoader, Cursor, DataError, LoaderConfig
from prolip.data.tokenizer import Tokenizer
from prolip.distributed import Ranks, find_device
from prolip.errors import UserError, check, check_at_least, fields_within, sentence
from prolip.inference.tokenizer import check_same_tokenizer, inference_files
from prolip.models import ProLIP
from prolip.models.precision import autocast
from prolip.pretrained.sources import new_model, resolve
from prolip.report.text_table import align
from prolip.store.atomic_writes import check_writable
from prolip.train.best_metric import check_metric
from prolip.train.config import TrainConfig, known_recipes, load_config, to_toml
from prolip.train.config.options import Assumption, DryRunOptions, RecipesOptions
from prolip.train.config.recipes import ADDITION
from prolip.train.cost import (
    count_parameters,
    known_cards,
    mean_step_flops,
    peak_flops,
    step_flops,
    trained_model,
)
from prolip.train.loop import find_saved
from prolip.train.validation import Validation

_ALONE = Ranks(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"))
_NO_SHARDS = ("--data.shards", "SHARDS")
_SMALL = 0.1
"""GPU-hours below which a run may be meant for a CPU."""
_SIZES = (
    *("embed_dim", "vision.layers", "vision.width", "vision.patch_size"),
    *("text.layers", "text.width", "text.heads"),
)
_RESIZABLE = ("vision.image_size", "text.context_length", "text.vocab_size")


def peak(options: Assumption, config: TrainConfig) -> float:
    """Peak FLOPs per second of the assumed GPU in the run's precision; a UserError if unknown."""
    flops = peak_flops(options.gpu, config.arithmetic)
    if flops is None:
        known = ", ".join(known_cards(config.arithmetic))
        raise UserError("gpu", f"must have a known peak in {config.arithmetic}, such as {known}", options.gpu)
    return flops


def gpu_hours(options: Assumption, config: TrainConfig, flops_per_sample: float) -> float:
    """GPU-hours of the whole run."""
    check_at_least(1, gpus=options.gpus)
    check(0 < options.mfu <= 1, "mfu", "must be above 0 and at most 1", options.mfu)
    samples = config.total_steps * config.samples_per_step
    return samples * flops_per_sample / (peak(options, config) * options.mfu) / 3600


def flops_per_sample(config: TrainConfig) -> float:
    """FLOPs per sample, on any number of devices."""
    return mean_step_flops(config).total / config.samples_per_step


# ---- prolip recipes -------------------------------------------------------------------------------------------------


def run_recipes(options: RecipesOptions) -> Iterator[str]:
    """Lines of the list, or of one recipe."""
    if options.names:
        config = load_config([*options.names, *_NO_SHARDS])
        yield to_toml(dataclasses.replace(config, data=dataclasses.replace(config.data, shards=()))).rstrip("\n")
        return
    names = known_recipes()
    known: dict[tuple[object, ...], float] = {}
    rows = [("recipe", "model", "samples", "batch", "GFLOPs/sample", "samples/s", "time", "GPU-hours")]
    for name in names:
        if name.startswith(ADDITION):
            continue
        config = load_config([name, *_NO_SHARDS])
        # Counting takes a second, and most ablations cost the same.
        same = (
            config.model,
            config.lock,
            config.data.masking,
            config.data.native,
            config.batch_size,
            config.accumulate,
        )
        if same not in known:
            known[same] = flops_per_sample(config)
        flops = known[same]
        total = gpu_hours(options, config, flops)
        hours = total / options.gpus
        speed = config.samples_seen / hours / 3600
        time = f"{hours:.1f} h" if hours < 24 else f"{hours / 24:.1f} days"
        cost = f"{flops / 1e9:,.1f}", f"{speed:,.0f}", time, f"{total:,.1f}"
        rows.append((name, config.architecture, count(config.samples_seen), f"{config.samples_per_step:,.0f}", *cost))
    yield from align(rows, 2)
    yield f"\nadd to any: {', '.join(name for name in names if name.startswith(ADDITION))}"
    yield (
        f"{options.gpus} x {options.gpu} at {options.mfu:.0%} of its peak in the recipe's precision (--gpus, --gpu, "
        "--mfu). As published, vit-b16-datacomp-1b-1.28b took 32 H100 about a day."
    )


def count(number: float) -> str:
    """With a unit: 1.28 B, 150 M, 12 k."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.4g} {unit}"
    return f"{number:g}"


# ---- prolip train --dry-run -----------------------------------------------------------------------------------------


def run_dry(options: DryRunOptions, arguments: Sequence[str]) -> Iterator[str]:
    """Check a run without starting it; yields the lines to print."""
    config = load_config(arguments)
    config.log.check()
    check_metric(config)
    yield from _cost(config, options)
    problems: list[str] = []
    for title, examine in (
        ("tokenizer", _tokenizer),
        ("shards", partial(_shards, gpus=options.gpus)),
        ("val", _validation),
        ("start", _start),
        ("folder", partial(_folder, gpus=options.gpus)),
    ):
        try:
            yield f"{title:9}  {examine(config)}"
        except (UserError, OSError, DataError) as error:
            problems.append(sentence(error))
            yield f"{title:9}  wrong: {sentence(error)}"
    yield from (f"note       {remark}" for remark in config.remarks)
    if options.settings:
        yield to_toml(config)
    if problems:
        raise UserError("dry run", "; ".join(dict.fromkeys(problems)))  # several checks may find the same
    yield "ready"


def _cost(config: TrainConfig, options: DryRunOptions) -> Iterator[str]:
    counts, flops = count_parameters(trained_model(config)), flops_per_sample(config)
    hours, limit = gpu_hours(options, config, flops), peak(options, config)
    config.loader(options.gpus)  # checks that the batch divides evenly
    yield (
        f"model      {count(counts.total)} parameters, {count(counts.trained)} trained: image tower "
        f"{count(counts.image_tower)}, text tower {count(counts.text_tower)}, tokens {count(counts.token_table)}, "
        f"[UNC] {count(counts.uncertainty)}"
    )
    yield f"steps      {config.total_steps:,} of {config.step_sizes}, {count(config.samples_seen)} samples"
    where = (
        f"{hours:,.2f} GPU-hours of {options.gpu} at {options.mfu:.0%} of its {limit / 1e12:g} TFLOPS in "
        f"{config.arithmetic}, {hours / options.gpus:,.2f} hours on {options.gpus}"
    )
    if hours < _SMALL and options.gpus == 1 and find_device(config.device).type == "cpu":
        minutes = config.samples_seen * flops / _cpu_speed(config) / 60
        where = f"about {minutes:,.0f} minutes on this CPU, as measured by a step, if nothing else runs"
    yield f"compute    {flops / 1e9:.4g} GFLOPs per sample: {where}"


def _cpu_speed(config: TrainConfig) -> float:
    _, kind = config.kinds_of_step[0]
    model, vision, items = ProLIP(kind.model), kind.model.vision, min(kind.batch_size, 32)
    images = torch.zeros(items, 3, *vision.height_and_width)
    ids = torch.ones(items, kind.model.text.context_length, dtype=torch.int64)
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        with autocast(config.precision, images.device):
            outputs = model.encode_image(images), model.encode_text(ids)
        torch.autograd.backward([some.mean.sum() + some.log_var.sum() for some in outputs])
        seconds.append(time.perf_counter() - begun)
    done = step_flops(trained_model(kind), None, batch_size=items, slots=1)
    return done.total / min(seconds)


def _tokenizer(config: TrainConfig) -> str:
    config.check_vocabulary()
    return f"{Tokenizer(config.data.tokenizer).vocab_size:,} ids for {config.model.text.vocab_size:,} rows"


def _shards(config: TrainConfig, gpus: int) -> str:
    """Open the loader as the run does, which reads the headers of local shards; read a first sample of each pattern."""
    settings = config.loader(gpus)
    try:
        Tokenizer(config.data.tokenizer)
    except (UserError, OSError):  # `_tokenizer` reports it
        settings = dataclasses.replace(settings, captions=())
    with fields_within("data."):
        with BatchLoader(settings, world_size=gpus) as loader:
            total = loader.num_samples
        # A selection may have no sample of a pattern.
        patterns = [(one,) for one in config.data.shards] if settings.selection is None else [config.data.shards]
        found = [_first_sample(settings, some) for some in patterns]
    known = "unknown number of samples" if total is None else f"{count(total)} samples per epoch{config.epochs(total)}"
    return f"{known}; test read OK: {', '.join(found)}"


def _first_sample(settings: LoaderConfig, patterns: tuple[str, ...]) -> str:
    shown = settings.selection or patterns[0]
    rows = 2 if settings.mask is None else math.ceil(1 / settings.mask.masked_fraction)
    one = dataclasses.replace(
        settings,
        shards=patterns,
        weights=(),
        mode="once",
        num_samples=None,
        batch_size=rows,
        native=settings.native and settings.native.of_one_length(settings.native.seq_lens[0], rows),
        num_epochs=1,
        shuffle_window=0,
        last_batch="keep",
        num_threads=1,
        prefetch_batches=1,
    )
    with BatchLoader(one) as loader:
        for batch in loader:
            return f"sample {batch.keys[0]} of {shown}"
        raise UserError("shards", f"no sample of {shown} can be read: {loader.stats().bad_samples}")


def _validation(config: TrainConfig) -> str:
    with Validation(config.validation, config.loader(1), _ALONE, nullcontext, config.model.vision.image_seq_len):
        return f"sets open: {', '.join(job.name for job in config.validation.jobs) or 'none'}"


def _start(config: TrainConfig) -> str:
    """Check that the start exists and fits. Of a model on the hub only sizes are compared, without its weights."""
    start = config.start_from
    if start is None:
        return "random weights"
    source = resolve(start)
    if source.repository is None:
        new_model(config.model, start, config.start_resize)
        return f"{start} fits"
    found = source.architecture()
    for name in (*_SIZES, *(_RESIZABLE if config.start_resize == "off" else ())):
        own, size = attrgetter(name)(config.model), attrgetter(name)(found)
        check(own == size, f"model.{name}", f"must be {size} as in {start}, or --architecture start_from", own)
    return f"{start} exists, and its sizes fit; its weights were not downloaded"


def _folder(config: TrainConfig, gpus: int) -> str:
    """Check that the run can write its folder, and resume from what is there with these shards and this tokenizer."""
    check_writable(config.out / "config.toml")
    saved = find_saved(config, _ALONE)
    if saved is None:
        return f"{config.out} has no checkpoint: the run starts at step 0"
    tokenizer = config.data.tokenizer
    check_same_tokenizer(saved, inference_files(tokenizer, config.model), tokenizer.path)
    with fields_within("data."):
        BatchLoader(config.loader(gpus), world_size=gpus, resume=Cursor.from_dict(saved.notes.cursor)).close()
    return f"{saved.path}: the run resumes at step {saved.step:,}"
