"""Runs before they begin: the recipes with what they cost, and a rehearsal that opens everything and starts nothing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from prolip.checkpoint import find_latest
from prolip.data import BatchLoader, DataError, LoaderConfig
from prolip.data.tokenizer import Tokenizer
from prolip.models import ModelConfig, ProLIP
from prolip.models.config import LockConfig
from prolip.models.freeze import lock_parameters
from prolip.pretrained.sources import HUB_PREFIX, OPEN_CLIP_PREFIX, new_model, read_config
from prolip.train.config import TrainConfig, differing_keys, known_recipes, load_config, to_toml
from prolip.train.config.options import Assumption, DryRunOptions, RecipesOptions
from prolip.train.cost import (
    Arithmetic,
    StepMemory,
    blank,
    count_parameters,
    known_cards,
    peak_flops,
    step_flops,
    step_memory,
)

_NAMELESS = ("--data.shards", "SHARDS")


def peak(options: Assumption, config: TrainConfig) -> float:
    """FLOPs per second of the assumed card in the run's precision.

    Raises:
        ValueError: the table of cards does not have it.
    """
    arithmetic = _arithmetic(config)
    found = peak_flops(options.gpu, arithmetic)
    if found is None:
        known = ", ".join(known_cards(arithmetic))
        raise ValueError(f"gpu is {options.gpu!r}: no peak in {arithmetic} is known of it, only of {known}")
    return found


def gpu_hours(options: Assumption, config: TrainConfig, flops_per_sample: float) -> float:
    """Hours of one card for the whole run.

    Raises:
        ValueError: `mfu` is out of range, or the table of cards does not have the card.
    """
    if not 0 < options.mfu <= 1:
        raise ValueError(f"mfu is {options.mfu}: it must be a share of the peak, above 0 and at most 1")
    samples = config.total_steps * config.batch_size
    return samples * flops_per_sample / (peak(options, config) * options.mfu) / 3600


def _arithmetic(config: TrainConfig) -> Arithmetic:
    """What the run multiplies matrices in."""
    return "tf32" if config.precision == "fp32" and config.fp32_matmul == "high" else config.precision


def trained_model(config: TrainConfig) -> ProLIP:
    """The run's model without memory, its locked parameters locked."""
    return _locked(config.model, config.lock, config.loss.reads_bias)


@cache  # many recipes have the same
def _locked(config: ModelConfig, lock: LockConfig, trains_bias: bool) -> ProLIP:
    model = blank(config)
    lock_parameters(model, lock, trains_bias=trains_bias)
    return model


def flops_per_sample(config: TrainConfig, model: ProLIP) -> float:
    """What a device does for a sample of the run, on any number of devices."""
    mask = config.data.masking
    size, slots = config.batch_size, len(config.data.captions)
    every = config.parallel.recompute_every
    flops = step_flops(model, mask, batch_size=size, slots=slots, accumulate=config.accumulate, recompute_every=every)
    return flops.total / size


# ---- prolip recipes -------------------------------------------------------------------------------------------------


def run_recipes(options: RecipesOptions) -> Iterator[str]:
    """The lines of the list, or of one recipe."""
    if options.name is not None:
        config = load_config([options.name, *_NAMELESS])
        yield to_toml(dataclasses.replace(config, data=dataclasses.replace(config.data, shards=()))).rstrip("\n")
        return
    rows = [("recipe", "model", "samples", "batch", "GFLOPs/sample", "GPU-hours")]
    for name in known_recipes():
        config = load_config([name, *_NAMELESS])
        work = flops_per_sample(config, trained_model(config))
        hours = gpu_hours(options, config, work)
        rows.append(
            (
                name,
                _architecture(config),
                count(config.num_samples),
                f"{config.batch_size:,}",
                f"{work / 1e9:,.1f}",
                f"{hours:,.{0 if hours >= 10 else 1}f}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        names = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        figures = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        yield "  ".join(names + figures)
    yield f"\nGPU-hours: {options.gpu} at {options.mfu:.0%} of its peak in the recipe's precision (--gpu, --mfu)."
    yield "prolip recipes NAME prints one, complete; prolip train NAME --dry-run checks a run."


def _architecture(config: TrainConfig) -> str:
    vision = config.model.vision
    return f"{config.architecture} {vision.image_size} px, {config.model.text.context_length} tokens"


def count(number: float) -> str:
    """A number with the prefix that leaves few digits."""
    for size, sign in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.4g} {sign}"
    return f"{number:g}"


# ---- prolip train --dry-run -----------------------------------------------------------------------------------------


def run_dry(options: DryRunOptions, arguments: Sequence[str]) -> Iterator[str]:
    """Check a run without starting it; yields the lines to print.

    Args:
        options: the number of GPUs and what is assumed of them.
        arguments: recipes and flags, as `prolip train` takes them.

    Raises:
        ValueError: something is wrong; the message lists everything that is.
    """
    if options.gpus < 1:
        raise ValueError(f"gpus is {options.gpus}: it must be at least 1")
    config = load_config(arguments)
    config.log.check()
    yield to_toml(config)
    yield from _figures(config, options)
    problems: list[str] = []
    for title, check in (("tokenizer", _tokenizer), ("shards", _shards), ("start", _start), ("folder", _folder)):
        try:
            yield f"{title:9}  {check(config)}"
        except (ValueError, OSError, DataError) as error:
            problems.append(str(error))
            yield f"{title:9}  wrong: {error}"
    if problems:
        raise ValueError("; ".join(problems))
    yield "ready      the same line without --dry-run begins"


def _figures(config: TrainConfig, options: DryRunOptions) -> Iterator[str]:
    model = trained_model(config)
    counts, work = count_parameters(model), flops_per_sample(config, model)
    hours, limit = gpu_hours(options, config, work), peak(options, config)
    config.loader(options.gpus)  # whether the batch divides
    memory = _memory(config, model, options.gpus)
    yield (
        f"model      {count(counts.total)} parameters, {count(counts.trained)} trained: image tower "
        f"{count(counts.image_tower)}, text tower {count(counts.text_tower)}, tokens {count(counts.token_table)}, "
        f"[UNC] {count(counts.uncertainty)}"
    )
    yield f"steps      {config.total_steps:,} of {config.batch_size:,} samples, {count(config.num_samples)} samples"
    yield (
        f"work       {work / 1e9:.4g} GFLOPs a sample: {hours:,.2f} GPU-hours of {options.gpu} at {options.mfu:.0%} "
        f"of its {limit / 1e12:g} TFLOPS in {_arithmetic(config)}, {hours / options.gpus:,.2f} hours on {options.gpus}"
    )
    yield (
        f"memory     about {memory.total / 1e9:.3g} GB a GPU: {memory.state / 1e9:.3g} GB whatever the batch, and "
        f"{memory.per_sample / 1e6:.3g} MB for each of {memory.items:,} samples"
    )


def _memory(config: TrainConfig, model: ProLIP, gpus: int) -> StepMemory:
    mask = config.data.masking
    return step_memory(
        model,
        mask,
        batch_size=config.batch_size // gpus,
        slots=len(config.data.captions),
        low=config.precision != "fp32",
        accumulate=config.accumulate,
        recompute_every=config.parallel.recompute_every,
        shared_by=gpus if config.parallel.strategy == "fsdp" else 1,
        reshard=config.parallel.reshard,
        average=config.ema.decay > 0,
    )


def _tokenizer(config: TrainConfig) -> str:
    config.check_vocabulary()
    return f"{Tokenizer(config.data.tokenizer).vocab_size:,} ids for {config.model.text.vocab_size:,} rows"


def _shards(config: TrainConfig) -> str:
    """All shards are named to a loader, which opens the local ones; of each pattern the first samples are read."""
    mask = config.data.masking
    small = dataclasses.replace(
        config, batch_size=2 if mask is None else math.ceil(1 / mask.masked_fraction), accumulate=1
    )
    settings = dataclasses.replace(small.loader(1), num_threads=1, prefetch_batches=1, shuffle_window=0)
    try:
        Tokenizer(config.data.tokenizer)
    except (ValueError, OSError):  # which is said by itself
        settings = dataclasses.replace(settings, captions=())
    with BatchLoader(settings) as loader:
        total = loader.num_samples
    found = [_first_sample(settings, pattern) for pattern in config.data.shards]
    known = "as many samples as turn out" if total is None else f"{count(total)} samples an epoch"
    return f"{known}; read {', '.join(found)}"


def _first_sample(settings: LoaderConfig, pattern: str) -> str:
    store = dataclasses.replace(settings.store, connections=1, cache_bytes=0)
    one = dataclasses.replace(
        settings,
        shards=(pattern,),
        weights=(),
        mode="once",
        num_samples=None,
        num_epochs=1,
        last_batch="keep",
        store=store,
    )
    with BatchLoader(one) as loader:
        for batch in loader:
            return f"{batch.keys[0]} of {pattern}"
        raise ValueError(f"data.shards: no sample of {pattern} can be used: {loader.stats().bad_samples}")


def _start(config: TrainConfig) -> str:
    """A local start is read and fitted; of one that would be fetched only what says that it is there."""
    start = config.start_from
    if start is None:
        return "random weights"
    if start.startswith(HUB_PREFIX):
        read_config(start)
        return f"{start} is there; its weights were not fetched"
    if start.startswith(OPEN_CLIP_PREFIX):
        return _open_clip_start(config, start)
    new_model(config.model, start, config.start_resize)
    return f"{start} fits"


def _open_clip_start(config: TrainConfig, start: str) -> str:
    import open_clip

    name, _, weights = start.removeprefix(OPEN_CLIP_PREFIX).partition("/")
    if ":" in name:
        return f"{start} was not looked up"
    if weights in open_clip.list_pretrained_tags_by_model(name):
        return f"{start} is known; its weights were not fetched"
    if not Path(weights).is_file():
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none: open_clip knows no such model"
        raise ValueError(f"start_from is {start}: {weights!r} is neither a file nor a tag of {name}, which has {tags}")
    new_model(config.model, start, config.start_resize)
    return f"{start} fits"


def _folder(config: TrainConfig) -> str:
    saved, rejected = find_latest(config.folder / "checkpoints")
    told = "".join(f"; not usable: {reason}" for reason in rejected)
    if saved is None:
        return f"{config.folder} has no checkpoint: the run begins at step 0{told}"
    if keys := differing_keys(config, saved.notes.config):
        raise ValueError(f"{config.folder} holds a run with another {', '.join(keys)}: choose another --name")
    return f"{config.folder} has checkpoints: the run goes on from step {saved.step:,}{told}"
