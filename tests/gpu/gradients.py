"""Loss and gradients of the device against double precision on the CPU.

The yardstick is the error of the CPU in the same precision: the device may round differently, but not much worse.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from tests.gpu.inputs import opened_run, settings, trial
from tests.gpu.job import alone_on
from tests.support.small_step import CONFIG, native_step_of
from torch import Tensor

from prolip.data.device import device_batches
from prolip.models.precision import DTYPES, autocast
from prolip.models.prolip import ProLIP
from prolip.train.loop import compute_gradients
from prolip.train.muon import orthogonalize

_FACTOR = {"fp32": 10.0, "bf16": 3.0, "fp16": 3.0}
"""Times the CPU's error. An error of TF32 is about 1,000 times that of fp32, one of a wrong term far above bf16's."""
_WHY = {
    "fp32": "10 × the CPU's error in fp32; TF32 would be 1,000 ×",
    "bf16": "3 × the CPU's error in bf16",
    "fp16": "3 × the CPU's error in fp16",
}
_CPU = torch.device("cpu")


class Result(NamedTuple):
    """Loss and gradients of one batch, in double precision on the CPU."""

    loss: float
    gradients: dict[str, Tensor]


class Errors(NamedTuple):
    """Relative errors of a result."""

    loss: float
    whole: float
    """Of all gradients as one vector."""
    tensor: float
    """Of the worst tensor. Gradients far smaller than the others count less."""


def eager(job):
    exact = double_precision(job)
    for precision in DTYPES:
        errors = yardstick(job, exact, precision)
        for name, flags in (
            ("whole", []),
            ("4 parts", ["--accumulate", "4"]),
            ("recomputed", ["--parallel.recompute_every", "1"]),
        ):
            compare(job, f"{precision}, {name}", exact, errors, precision, flags)
    orthogonal(job)
    native(job)


def native(job):
    """The image tower of padded images, whose mask takes another kernel on a GPU."""
    images = native_step_of(9, 0).images
    for seen in (True, False):
        torch.manual_seed(0)
        model = ProLIP(replace(CONFIG, vision=replace(CONFIG.vision, image_seq_len=4, unc_seen=seen)))
        found = []
        for device, precision in ((_CPU, "fp32"), (_CPU, "bf16"), (job.place, "bf16")):
            model.to(device)
            with autocast(precision, device):
                output = model.encode_image(images.to(device))
            score = output.mean.sum() + output.log_var.sum()
            gradients = torch.autograd.grad(score, [*model.visual.parameters()])
            found.append(torch.cat([one.flatten().cpu() for one in gradients]))
        of_cpu, error = (float((one - found[0]).norm() / found[0].norm()) for one in found[1:])
        job.check(f"native images, unc_seen={seen}", error, _FACTOR["bf16"] * of_cpu, _WHY["bf16"])


def orthogonal(job):
    matrices = torch.randn(3, 48, 160, generator=torch.Generator().manual_seed(0))
    expected, found = orthogonalize(matrices), orthogonalize(matrices.to(job.place)).cpu()
    error = float((found - expected).norm() / expected.norm())
    job.check("Muon's orthogonal matrices", error, 0.05, "bfloat16 on a GPU, fp32 on a CPU")


def compiled(job):
    exact = double_precision(job)
    job.choose_compiler()
    for precision in ("bf16", "fp32", "fp16") if job.on_gpu else ("fp32",):
        errors = yardstick(job, exact, precision)
        compare(job, f"{precision}, compiled", exact, errors, precision, ["--parallel.compile", "True"])


def compare(job, what, exact, yardstick, precision, flags):
    with trial_run(job, job.place, precision, flags) as run:
        found = errors(result(run), exact)
    least = torch.finfo(DTYPES[precision]).eps / 2
    for name, error, of_cpu in zip(("loss", "all gradients", "worst tensor"), found, yardstick, strict=True):
        job.check(f"{what}: {name}", error, _FACTOR[precision] * max(of_cpu, least), _WHY[precision])


def yardstick(job, exact, precision):
    with trial_run(job, _CPU, precision, []) as run:
        return errors(result(run), exact)


def double_precision(job):
    with trial_run(job, _CPU, "fp32", []) as run:
        run.model.double()
        return result(run)


def trial_run(job, device, precision, flags):
    arguments = [*trial(job), "--batch_size", "16", "--data.mask.masked_fraction", "0.5", "--precision", precision]
    return opened_run(settings(job, "gradients", *arguments, *flags), alone_on(device))


def result(run):
    """Loss and gradients of the run's first batch. As in training, an overflow in fp16 is tried with a lower scale."""
    with run.loader:
        batch = next(device_batches(run.loader, run.ranks.device))
    dtype = next(run.model.parameters()).dtype
    batch = batch._replace(images=batch.images.to(dtype))
    terms = finite_gradients(run, batch)
    found = {name: p.grad.double().cpu() for name, p in run.model.named_parameters() if p.grad is not None}
    return Result(terms, found)


def finite_gradients(run, batch):
    while True:
        loss = compute_gradients(run, batch)[0].total.item()
        finite = all(bool(p.grad.isfinite().all()) for p in run.model.parameters() if p.grad is not None)
        if finite or run.scaler is None or not run.scaler.update(torch.tensor(False, device=run.ranks.device)):
            return loss


def errors(found, exact):
    assert found.gradients.keys() == exact.gradients.keys()
    distances = {name: float((found.gradients[name] - of).norm()) for name, of in exact.gradients.items()}
    lengths = {name: float(of.norm()) for name, of in exact.gradients.items()}
    whole = math.hypot(*lengths.values())
    return Errors(
        loss=abs(found.loss - exact.loss) / abs(exact.loss),
        whole=math.hypot(*distances.values()) / whole,
        tensor=max(distance / (lengths[name] + 1e-3 * whole) for name, distance in distances.items()),
    )
