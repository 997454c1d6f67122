"""Training, from top to bottom: set-up, one step, the loop.

A run has one folder (config.toml, metrics.jsonl, tensorboard/, checkpoints/) that all ranks see, and resumes from its
newest checkpoint. On CPUs, with the same number of ranks, it ends with the bits of an uninterrupted run.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from signal import SIGINT, Signals

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from prolip.checkpoint import Best, Checkpoint, Notes, RunLock, Saver, agree_on_checkpoint, rng_tensors, run_tensors
from prolip.data import BatchLoader, Cursor, DataError
from prolip.data.device import DeviceBatch, device_batches
from prolip.distributed import Peers, Ranks, failing_at_once, join, meet
from prolip.distributed.allocator import keep_freed_memory
from prolip.errors import UserError, fields_within, log_to_terminal, of_os_error
from prolip.inference.tokenizer import check_same_tokenizer, inference_files
from prolip.losses import LossTerms, ProlipLoss
from prolip.models import ProLIP, ProLIPOutput, lock_parameters
from prolip.models.official_json import to_official_json
from prolip.models.precision import DTYPES, autocast
from prolip.pretrained.sources import new_model
from prolip.store.atomic_writes import write_atomic
from prolip.train.accumulate import backward
from prolip.train.best_metric import BestSoFar, check_metric
from prolip.train.config import TrainConfig, differing_keys, load_config, to_toml
from prolip.train.cost import parameter_counts
from prolip.train.logging import Meter, MetricsLog, seconds_at_peak
from prolip.train.optim import (
    Divergence,
    Ema,
    LossScaler,
    clamp_logit_scale,
    clip_gradients,
    learning_rate,
    make_optimizer,
    set_learning_rate,
    step_where,
)
from prolip.train.parallel import Loss, average_whole_gradients, compile_loss, share_model
from prolip.train.stop_signal import StopRequest
from prolip.train.validation import Validation, whole_model

log = logging.getLogger("prolip.train")


# ---- Set-up ---------------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """Its state between two steps."""

    config: TrainConfig
    ranks: Ranks
    model: ProLIP
    network: nn.Module
    """Wrapped by `prolip.train.parallel.share_model`."""
    loss: Loss
    optimizer: torch.optim.Optimizer
    ema: Ema | None
    scaler: LossScaler | None
    """With fp16."""
    divergence: Divergence
    stopping: StopRequest
    loader: BatchLoader
    """From this step on."""
    saver: Saver
    validation: Validation
    best: BestSoFar
    step: int
    """Done."""
    samples: int
    """Seen by all ranks."""
    elapsed_s: float
    """Of training before the last restart."""


def set_up(config: TrainConfig, ranks: Ranks, opened: ExitStack) -> Run:
    """Start a run, or resume it. Its folder is locked until `opened` is closed."""
    loader_config = config.loader(ranks.world_size)
    loader_config = replace(loader_config, num_threads=loader_config.num_threads or ranks.cores)
    config.check_vocabulary()
    config.log.check()
    check_metric(config)
    torch.set_num_threads(config.cpu_threads or ranks.cores)  # on a GPU, too: validation computes on the host
    torch.manual_seed(config.seed)
    preprocessing = inference_files(config.data.tokenizer, config.model)
    opened.enter_context(RunLock(config.out, ranks))
    saved = find_saved(config, ranks)
    step, cursor = (0, None) if saved is None else (saved.step, Cursor.from_dict(saved.notes.cursor))
    # Data come first: their errors are reported before weights are loaded.
    with fields_within("data."):
        loader = BatchLoader(loader_config, rank=ranks.rank, world_size=ranks.world_size, resume=cursor)
    low, seq_len = partial(autocast, config.precision, ranks.device), config.model.vision.image_seq_len
    validation = Validation(config.validation, loader_config, ranks, low, seq_len)
    stopping = StopRequest(ranks)  # waits for all ranks: wrong data on one ends the job before a collective
    model = new_model(config.model, config.start_from if saved is None else None, config.start_resize).to(ranks.device)
    lock_parameters(model, config.lock)
    network = share_model(model, config.parallel, ranks, DTYPES[config.precision])
    loss = ProlipLoss(config.loss, Peers(), variance_units=model.config.start_variances)
    optimizer = make_optimizer(model, config.optim, ranks, config.precision)
    ema = Ema(model, config.ema) if config.ema.decay > 0 else None
    scaler = LossScaler(ranks.device) if config.precision == "fp16" else None
    if saved is not None:
        check_same_tokenizer(saved, preprocessing, config.data.tokenizer.path)
        saved.restore(model, optimizer, ema)
        if scaler is not None and saved.notes.scaler is not None:
            scaler.load_state_dict(saved.notes.scaler)
        saved.restore_rng(ranks)
    folder = config.out / "checkpoints"
    run = Run(
        config=config,
        ranks=ranks,
        model=model,
        network=network,
        loss=compile_loss(loss, config.parallel, ranks),
        optimizer=optimizer,
        ema=ema,
        scaler=scaler,
        divergence=Divergence(ranks),
        stopping=stopping,
        loader=loader,
        saver=Saver(folder, ranks, keep=config.keep_checkpoints, after=step, preprocessing=preprocessing),
        validation=validation,
        best=BestSoFar(config, ranks, step),
        step=step,
        samples=0 if saved is None else saved.notes.samples,
        elapsed_s=0.0 if saved is None else saved.notes.elapsed_s,
    )
    if ranks.rank == 0:
        write_atomic(config.out / "config.toml", to_toml(config))
        total, trained = parameter_counts(model)
        log.info(
            f"{config.out}: {trained:,} of {total:,} parameters train, steps {run.step} to "
            f"{config.total_steps}, each of {config.step_sizes}{config.epochs(run.loader.num_samples)}, "
            f"{ranks.world_size} process(es) on {ranks.device.type}, {config.precision}"
            f"{''.join(f'; {remark}' for remark in config.remarks)}"
        )
    return run


def find_saved(config: TrainConfig, ranks: Ranks) -> Checkpoint | None:
    """The checkpoint to resume from, the same on every rank; None for a new run."""
    saved = agree_on_checkpoint(config.out / "checkpoints", config.resume, ranks)
    if saved is not None and (keys := differing_keys(config, saved.notes.config)):
        changed = ", ".join(f"{key} ({before} there, {now} now)" for key, (before, now) in keys.items())
        raise UserError(
            config.out,
            f"holds a run with different {changed}: choose another --out (--start_from {config.out} "
            "goes on from its weights), or remove that folder",
        )
    return saved


# ---- Step -----------------------------------------------------------------------------------------------------------


def compute_gradients(run: Run, batch: DeviceBatch) -> tuple[LossTerms, ProLIPOutput]:
    """Averaged over the ranks; returns the batch's loss terms and embeddings."""
    low = partial(autocast, run.config.precision, run.ranks.device)
    scale = 1.0 if run.scaler is None else run.scaler.scale
    run.optimizer.zero_grad(set_to_none=True)
    result = backward(run.network, run.loss, batch, micro_batches=run.config.accumulate, precision=low, scale=scale)
    average_whole_gradients(run.network)
    if run.scaler is not None:
        run.scaler.unscale(run.model.parameters())
    return result


def take_step(run: Run, batch: DeviceBatch) -> tuple[LossTerms, ProLIPOutput, Tensor]:
    """Take one step; returns loss terms, embeddings and the gradient norm before clipping, all still on the device.

    Weights change only if loss and gradient are finite. If a gradient overflows fp16, the step is skipped, and its norm
    is returned as 0. Otherwise the run has diverged: on a CPU this raises a RuntimeError, on a GPU the next row does.
    """
    optim = run.config.optim
    set_learning_rate(run.optimizer, learning_rate(optim, run.step, run.config.total_steps))
    terms, output = compute_gradients(run, batch)
    grad_norm = clip_gradients(run.model.parameters(), optim.clip_norm)
    finite = grad_norm.isfinite()  # then the loss is finite too, on every rank
    diverged = ~finite
    if run.scaler is not None:
        overflowed = run.scaler.update(finite) & terms.total.isfinite()
        diverged &= ~overflowed
    diverged = run.divergence.note(run.step + 1, terms, grad_norm, diverged)
    step_where(run.optimizer, finite & ~diverged)
    if run.ranks.device.type == "cpu":
        run.divergence.check()
    clamp_logit_scale(run.model)
    run.step += 1
    run.samples += batch.token_ids.shape[1] * run.ranks.world_size
    if run.ema is not None:
        run.ema.update(run.step)
    return terms, output, grad_norm.where(finite, 0.0)


# ---- Loop -----------------------------------------------------------------------------------------------------------


def loop(run: Run, opened: ExitStack) -> int:
    """Train until the run is done or a signal ends it; returns the signal, or 0. Logs are closed with `opened`."""
    config = run.config
    batches = device_batches(run.loader, run.ranks.device, dtype=DTYPES[config.precision])
    meter = Meter(
        run.ranks,
        batches,
        run.loader,
        step=run.step,
        samples=run.samples,
        elapsed_s=run.elapsed_s,
        at_peak=seconds_at_peak(config, run.ranks),
        scaler=run.scaler,
    )
    rehearsing = run.step > 0 and isinstance(run.network, DistributedDataParallel)
    stopping = opened.enter_context(run.stopping)
    logs = opened.enter_context(MetricsLog(config, run.step, leads=run.ranks.rank == 0))
    logged = saved = run.step
    for batch in stopping.until_stopped(batches):
        if rehearsing:
            # DDP's first backward pass fixes the order of its sums. One without a step gives this step the order of an
            # uninterrupted run.
            compute_gradients(run, batch)
            rehearsing = False
        terms, output, grad_norm = take_step(run, batch)
        meter.add(terms)
        run.saver.check()
        done = run.step == config.total_steps
        saving = done or run.step % config.checkpoint_every == 0
        validating, best = run.validation.is_due(run.step, done=done), None
        if saving or validating or run.step % config.log_every == 0:
            best = write_row(run, meter, logs, output, grad_norm)
            logged = run.step
        logs.show_examples(run.step, batch, output)
        if validating:
            metrics = run.validation.run(run.step, evaluated_model(run), done=done)
            logs.write_validation(run.step, run.samples, metrics)
            meter.pause()
            best = run.best.beaten_by(metrics) or best
        if saving or best is not None:
            save(run, batch.cursor, best)
            saved = run.step
        if done:
            break
    if saved < run.step:  # a signal came
        best = write_row(run, meter, logs, output, grad_norm) if logged < run.step else None
        save(run, batch.cursor, best)
    run.saver.wait()  # inside `stopping`: another signal must not end the process
    return stopping.signal


def write_row(run: Run, meter: Meter, logs: MetricsLog, output: ProLIPOutput, grad_norm: Tensor) -> Best | None:
    """Of the steps since the last one; returns its metric if it is the best so far."""
    run.divergence.check()  # before anything is saved, where the host waits for the device anyway
    lr = learning_rate(run.config.optim, run.step - 1, run.config.total_steps)
    row = meter.row(run.step, run.samples, output, grad_norm, lr)
    logs.write(row)
    run.elapsed_s = meter.elapsed_s
    return run.best.beaten_by(row)


def evaluated_model(run: Run) -> ProLIP:
    """With averaged weights if any, not sharded, not compiled."""
    average = None if run.ema is None else run.ema.state_dict()
    return whole_model(run.model, average, copied=run.config.parallel.compiles(run.ranks.device.type))


def save(run: Run, cursor: Cursor, best: Best | None = None) -> None:
    """Start writing a checkpoint; all ranks call this."""
    notes = Notes(
        step=run.step,
        world_size=run.ranks.world_size,
        elapsed_s=run.elapsed_s,
        cursor=cursor.to_dict(),
        config=to_toml(run.config),
        model_config=to_official_json(run.config.model),
        keep_ratio=None if run.config.data.mask is None else run.config.data.mask.keep_ratio,
        samples=run.samples,
        scaler=None if run.scaler is None else run.scaler.state_dict(),
    )
    run.saver.save(notes, run_tensors(run.model, run.optimizer, run.ema) | rng_tensors(run.ranks), best)


def train(arguments: Sequence[str], ranks: Ranks, opened: ExitStack) -> int:
    """Train on one rank; returns the exit status. What this opens is closed with `opened`."""
    try:
        config = load_config(arguments)
        ranks = join(ranks, config.device, timedelta(minutes=config.timeout_minutes))
        if ranks.device.type == "cpu":
            keep_freed_memory()
        run = set_up(config, ranks, opened)
    except OSError as error:
        raise of_os_error(error) from error
    if run.step >= run.config.total_steps:
        log.info("%s is complete: %d steps", run.config.out, run.step)
        log.info(config.closing)
        return 0
    for each in (run.loader, run.saver, run.validation):
        opened.enter_context(each)
    signal = loop(run, opened)
    if signal:
        saved, then = ("saved", "resume") if run.step else ("nothing to save", "start")
        log.info("%s at step %d, %s: run the same command again to %s", Signals(signal).name, run.step, saved, then)
    else:
        log.info(config.closing)
    return 130 if signal == SIGINT else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Train; returns the exit status: 0 if done or stopped by SIGTERM or SIGHUP, 130 by Ctrl-C, 2 for wrong input."""
    leads = os.environ.get("RANK", "0") == "0"
    log_to_terminal(logging.INFO if leads else logging.CRITICAL)
    try:
        ranks = meet()
        with failing_at_once("prolip train", log, ranks) as opened:
            return train(sys.argv[1:] if arguments is None else arguments, ranks, opened)
    except (UserError, DataError) as error:  # of a single process, or of a rank that meets no other
        log.critical("prolip train: %s", error)
        return 2
