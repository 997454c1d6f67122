"""Training steps on the device: samples per second, utilisation, memory and waiting, beside the published step."""

import time
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, cast

import torch
from tests.bench.published_step import PublishedModel, PublishedStep
from tests.bench.step_sides import images_and_ids, masked_step
from tests.gpu.inputs import opened_run, settings, trial

from prolip.data.device import DeviceBatch, device_batches
from prolip.models.precision import DTYPES, autocast
from prolip.train.logging import seconds_at_peak
from prolip.train.loop import take_step
from prolip.train.optim import learning_rate

_GOAL, _OF_PUBLISHED = 2000, 1.5


@dataclass(frozen=True)
class Timed:
    """Steps that were timed."""

    steps: int
    seconds: float

    def rate(self, batch_size):
        return self.steps * batch_size / self.seconds


def eager(job):
    train(job, "speed-eager")


def compiled(job):
    job.choose_compiler()
    train(job, "speed-compiled", "--parallel.compile", "True")


# ---- The base model -------------------------------------------------------------------------------------------------


def train(job, name, *flags):
    """The base model from shards, then on one batch."""
    size = 8 if job.small else 512
    config = settings(job, name, *sizes(job), "--batch_size", str(size), *flags)
    with opened_run(config, job.ranks) as run:
        batch = from_shards(job, run)
        again = time_steps(job, lambda: take_step(run, batch), seconds=5).rate(size)
        job.figure("samples/s, one batch", again, "", "without a loader")


def from_shards(job, run):
    """Time steps from shards; returns the batch after them."""
    size = run.config.batch_size
    reset_peak(job)
    with run.loader:
        batches = device_batches(run.loader, job.place, dtype=DTYPES[run.config.precision])
        started = time.perf_counter()
        take_step(run, next(batches))
        job.synchronize()
        job.figure("first step", time.perf_counter() - started, "s", "compiles, if that is on")
        waited = 0.0

        def start():
            nonlocal waited
            waited = batches.wait_seconds

        timed = time_steps(job, lambda: take_step(run, next(batches)), seconds=12, on_start=start)
        rate = timed.rate(size)
        job.figure(
            "samples/s from shards", rate, "", f"batch {size}, {timed.steps} steps", goal=None if job.small else _GOAL
        )
        share = (batches.wait_seconds - waited) / timed.seconds
        job.figure("waiting for data", share, "", "share of the time", goal=0.02, more_is_better=False)
        report_use(job, run, timed, size)
        return next(batches)


def sizes(job):
    """Flags of the base model, or of a small one."""
    return [*trial(job), "--precision", "bf16"] if job.small else ["--precision", "bf16"]


# ---- Beside the published step --------------------------------------------------------------------------------------


def published(job):
    """Ours and the published step from the same weights on the same batch, one after the other."""
    for size in (8,) if job.small else (512, 256, 128):
        try:
            beside_published(job, size)
        except torch.OutOfMemoryError:
            job.figure(f"batch {size}", "out of memory", "", "the next smaller batch is tried")
            torch.cuda.empty_cache()
        else:
            return


def beside_published(job, size):
    config = settings(job, "published", *sizes(job), "--batch_size", str(size))
    torch.manual_seed(0)
    images, ids = images_and_ids(config.model, size)
    ours, weights = our_side(job, config, images, ids)
    if job.on_gpu:
        torch.cuda.empty_cache()
    theirs = their_side(job, config, weights, images, ids)
    why = "bf16; their residual stream is in bf16, too"
    job.check("first loss, ours and theirs", abs(ours.loss / theirs.loss - 1), 0.01, why)
    job.figure("samples/s, our step", ours.rate, "", f"batch {size}, not compiled")
    job.figure("samples/s, published step", theirs.rate, "", f"batch {size}")
    job.figure("ours by theirs", ours.rate / theirs.rate, "×", goal=None if job.small else _OF_PUBLISHED)
    if job.on_gpu:
        job.figure("peak memory, ours", ours.peak_gib, "GiB")
        job.figure("peak memory, published", theirs.peak_gib, "GiB")
    else:
        job.not_run("peak memory of both")


class Side(NamedTuple):
    """What one side took."""

    loss: float
    """Of the first step."""
    rate: float
    """Samples per second."""
    peak_gib: float


def our_side(job, config, images, ids):
    """Our side, and the weights that it began with."""
    mask = config.data.masking
    assert mask is not None
    with opened_run(config, job.ranks) as run:
        weights = {name: tensor.to("cpu", copy=True) for name, tensor in run.model.state_dict().items()}
        torch.manual_seed(1)
        step = masked_step(config.model, images.to(DTYPES["bf16"]), ids, mask)
        batch = cast(DeviceBatch, type(step)(*(None if tensor is None else tensor.to(job.place) for tensor in step)))
        return one_side(job, lambda: take_step(run, batch)[0].total, len(images)), weights


def their_side(job, config, weights, images, ids):
    """The published step from these weights."""
    mask, model = config.data.masking, PublishedModel(config.model)
    assert mask is not None
    model.load_state_dict(weights)
    torch.set_float32_matmul_precision("high")  # as open_clip's training allows
    torch.backends.cudnn.benchmark = True
    step = PublishedStep(model.to(job.place), config.loss, config.optim, mask, partial(autocast, "bf16", job.place))
    images, ids = images.contiguous().to(job.place), ids.to(job.place)
    lr = learning_rate(config.optim, 0, config.total_steps)
    torch.manual_seed(1)
    return one_side(job, lambda: step(images, ids, lr), len(images))


def one_side(job, step, size):
    reset_peak(job)
    loss = step().item()
    rate = time_steps(job, step, seconds=6).rate(size)
    return Side(loss, rate, torch.cuda.max_memory_allocated() / 2**30 if job.on_gpu else 0.0)


# ---- Clock and memory -----------------------------------------------------------------------------------------------


def time_steps(job, step, *, seconds, on_start=lambda: None):
    """Time about so many seconds of steps, after three that are not counted. The host waits only at both ends."""
    step()
    job.synchronize()
    begun = time.perf_counter()
    step()
    step()
    job.synchronize()
    each = (time.perf_counter() - begun) / 2
    count = 2 if job.small else max(3, min(500, round(seconds / each)))
    on_start()
    begun = time.perf_counter()
    for _ in range(count):
        step()
    job.synchronize()
    return Timed(count, time.perf_counter() - begun)


def report_use(job, run, timed, size):
    """MFU, and the peak of memory."""
    at_peak = seconds_at_peak(run.config, run.ranks)
    if at_peak is None:
        job.not_run("MFU", "the peak of this device is not known")
    else:
        # Counted for a batch of the run's settings.
        mfu = at_peak * size / run.config.batch_size * timed.steps / timed.seconds
        job.figure("MFU", mfu, "", "without recomputed FLOPs")
    if not job.on_gpu:
        job.not_run("peak memory")
        return
    peak = torch.cuda.max_memory_allocated() / 2**30
    job.figure("peak memory", peak, "GiB", f"{torch.cuda.max_memory_reserved() / 2**30:.1f} reserved")


def reset_peak(job):
    if job.on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
