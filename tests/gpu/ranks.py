"""DDP and FSDP2 on one rank: what NCCL, the wrappers and the sharded optimizer do must change no number.

One card has room for one rank of NCCL. `share_model` leaves a single process unwrapped, so it is told of two.
"""

import datetime
from dataclasses import replace
from unittest.mock import patch

import torch
import torch.distributed as dist
from tests.gpu.inputs import opened_run, settings, trial
from torch.distributed.device_mesh import init_device_mesh

from prolip.data.device import device_batches
from prolip.distributed import stop
from prolip.models.precision import DTYPES
from prolip.train.loop import take_step
from prolip.train.optim import make_optimizer
from prolip.train.parallel import share_model

_STEPS = 3
_LIMITS = {"fp32": 1e-5, "bf16": 1e-2}
"""Relative. The kernels are the same; sums of gradients may be in another order. FSDP in bf16 also rounds norms and
biases to 8 bits (docs/decisions/013-parallelism.md)."""


def one_rank(job):
    if job.on_gpu:
        torch.cuda.set_device(job.place)
    backend, named = ("nccl", job.place) if job.on_gpu else ("gloo", None)
    dist.init_process_group(
        backend,
        store=dist.FileStore(str(job.scratch / "store"), 1),
        rank=0,
        world_size=1,
        device_id=named,
        timeout=datetime.timedelta(seconds=30),
    )
    job.figure("backend", backend)
    for precision, limit in _LIMITS.items():
        plain = three_steps(job, precision, "none")
        for strategy, parts in (("ddp", "1"), ("ddp", "2"), ("fsdp", "1"), ("fsdp", "2")):
            found = three_steps(job, precision, strategy, "--accumulate", parts)
            for what, place in (("loss", 0), ("gradient norm", 1)):
                pairs = [(one[place], other[place]) for one, other in zip(found, plain, strict=True)]
                error = max(abs(one - other) / abs(other) for one, other in pairs)
                name = f"{strategy}, {precision}, {parts} parts: {what} of {_STEPS} steps"
                job.check(name, error, limit, "only the order of sums may differ")
    stop()


def three_steps(job, precision, strategy, *flags):
    """Loss and gradient norm of every step."""
    arguments = [*trial(job), "--batch_size", "16", "--precision", precision, "--optim.clip_norm", "0.5"]
    found = []
    with opened_run(settings(job, "ranks", *arguments, *flags), job.ranks) as run, run.loader:
        if strategy != "none":
            wrap(run, strategy)
        batches = device_batches(run.loader, job.place, dtype=DTYPES[run.config.precision])
        for _ in range(_STEPS):
            found.append(step(run, next(batches)))
    return found


def wrap(run, strategy):
    """Wrap the model as for several ranks, and make its optimizer."""

    def one(device, _):
        return init_device_mesh(device, (1,))

    config = replace(run.config.parallel, strategy=strategy)
    with patch("prolip.train.parallel.init_device_mesh", one):
        run.network = share_model(run.model, config, replace(run.ranks, world_size=2), DTYPES[run.config.precision])
    run.optimizer = make_optimizer(run.model, run.config.optim, run.ranks)


def step(run, batch):
    terms, _, norm = take_step(run, batch)
    return terms.total.item(), norm.item()
