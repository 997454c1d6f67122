"""`prolip train --dry-run`: check a run and estimate its cost, without starting it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from operator import attrgetter

import torch

from prolip.data import BatchLoader, Cursor, DataError, LoaderConfig
from prolip.data.tokenizer import Tokenizer
from prolip.distributed import Ranks
from prolip.errors import UserError, check, fields_within, sentence
from prolip.inference.tokenizer import check_same_tokenizer, inference_files
from prolip.pretrained.sources import new_model, resolve
from prolip.store.atomic_writes import check_writable
from prolip.train.best_metric import check_metric
from prolip.train.config import TrainConfig, load_config
from prolip.train.config.options import DryRunOptions
from prolip.train.cost import count, estimate
from prolip.train.loop import find_saved
from prolip.train.validation import Validation

_ALONE = Ranks(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"))
_SIZES = (
    *("embed_dim", "vision.layers", "vision.width", "vision.patch_size"),
    *("text.layers", "text.width", "text.heads"),
)
_RESIZABLE = ("vision.image_size", "text.context_length", "text.vocab_size")


def run_dry(options: DryRunOptions, arguments: Sequence[str]) -> Iterator[str]:
    """Check a run; yields the lines to print."""
    config = load_config(arguments)
    config.log.check()
    check_metric(config)
    yield from estimate(config, options)
    config.loader(options.gpus)  # checks that the batch divides evenly
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
    if problems:
        raise UserError("dry run", "; ".join(dict.fromkeys(problems)))  # several checks may find the same
    yield "ready"


def _tokenizer(config: TrainConfig) -> str:
    config.check_vocabulary()
    return f"{Tokenizer(config.data.tokenizer).vocab_size:,} ids for {config.model.text.vocab_size:,} rows"


def _shards(config: TrainConfig, gpus: int) -> str:
    """Open the loader as the run does, which reads the headers of local shards; read a sample of each pattern."""
    settings = config.loader(gpus)
    try:
        Tokenizer(config.data.tokenizer)
    except (UserError, OSError):  # `_tokenizer` reports it
        settings = dataclasses.replace(settings, captions=())
    with fields_within("data."):
        with BatchLoader(settings, world_size=gpus) as loader:
            total = loader.num_samples
        # A selection may have no sample of a pattern.
        patterns = (
            [(pattern,) for pattern in config.data.shards] if settings.selection is None else [config.data.shards]
        )
        samples = [_first_sample(settings, each) for each in patterns]
    known = "unknown number of samples" if total is None else f"{count(total)} samples per epoch{config.epochs(total)}"
    return f"{known}; test read OK: {', '.join(samples)}"


def _first_sample(settings: LoaderConfig, patterns: tuple[str, ...]) -> str:
    shown = settings.selection or patterns[0]
    rows = 2 if settings.mask is None else math.ceil(1 / settings.mask.masked_fraction)
    reading = dataclasses.replace(
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
    with BatchLoader(reading) as loader:
        for batch in loader:
            return f"sample {batch.keys[0]} of {shown}"
        raise UserError(
            "shards", f"no sample of {shown} can be read: {'; '.join(map(str, loader.stats().bad_samples))}"
        )


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
    architecture = source.architecture()
    for name in (*_SIZES, *(_RESIZABLE if config.start_resize == "off" else ())):
        own, size = attrgetter(name)(config.model), attrgetter(name)(architecture)
        check(own == size, f"model.{name}", f"must be {size} as in {start}, or --architecture start_from", own)
    return f"{start} exists, and its sizes fit; its weights were not downloaded"


def _folder(config: TrainConfig, gpus: int) -> str:
    """Check that the run can write its folder, and resume what is there with these shards and this tokenizer."""
    check_writable(config.out / "config.toml")
    saved = find_saved(config, _ALONE)
    if saved is None:
        return f"{config.out} has no checkpoint: the run starts at step 0"
    tokenizer = config.data.tokenizer
    check_same_tokenizer(saved, inference_files(tokenizer, config.model), tokenizer.path)
    with fields_within("data."):
        BatchLoader(config.loader(gpus), world_size=gpus, resume=Cursor.from_dict(saved.notes.cursor)).close()
    return f"{saved.path}: the run resumes at step {saved.step:,}"
