"""What training costs: FLOPs of a step, counted by torch, and hours by the peak FLOPS of known GPUs.

A multiply-add is two operations. Only matrix products count. The step runs on tensors without values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from prolip.errors import UserError, check, check_at_least
from prolip.models import ProLIP
from prolip.models.config import Precision
from prolip.models.lock import lock_parameters
from prolip.train.config import TrainConfig
from prolip.train.config.options import DryRunOptions


class StepFlops(NamedTuple):
    """Of one process's step."""

    useful: float
    """Without recomputation: the numerator of model FLOPs utilisation (MFU)."""
    total: float
    """What the device executes: with recomputed blocks and the first forward pass of gradient accumulation."""


def step_flops(config: TrainConfig, world_size: int = 1) -> StepFlops:
    """Of a step of a run on one of its processes; with native images, of the mean step."""
    useful = total = 0.0
    for prob, kind in config.kinds_of_step:
        items, slots = kind.batch_size // world_size, len(config.data.captions)
        # For every pair: the similarity, and its gradients for both means.
        loss = 3 * 2 * slots * items * kind.batch_size * config.model.embed_dim
        forward, backward = _count(kind, items, 0)
        recomputed = forward if config.accumulate > 1 else 0
        if config.parallel.recompute_every:
            recomputed += _count(kind, items, config.parallel.recompute_every)[1] - backward
        useful += prob * (forward + backward + loss)
        total += prob * (forward + backward + loss + recomputed)
    return StepFlops(useful, total)


def _count(config: TrainConfig, items: int, recompute_every: int) -> tuple[int, int]:
    """Of the towers' forward and backward pass on `items` samples."""
    mask, vision, text = config.data.masking, config.model.vision, config.model.text
    with FakeTensorMode(), torch.device("cpu"), FlopCounterMode(display=False) as counter:
        model = ProLIP(config.model)
        lock_parameters(model, config.lock)
        model.visual.transformer.recompute_every = model.text.transformer.recompute_every = recompute_every
        images = torch.zeros(items, 3, *vision.height_and_width)
        ids = torch.zeros(len(config.data.captions), items, text.context_length, dtype=torch.long)
        views: tuple[torch.Tensor | None, torch.Tensor | None] = None, None
        if mask is not None and (masked := int(items * mask.masked_fraction)):
            kept = torch.zeros(masked, int(vision.num_patches * mask.keep_ratio), dtype=torch.long)
            views = ids[:, :masked], kept
        outputs = [value for value in tree_leaves(model(images, ids, *views)) if value is not None]
        forward = counter.get_total_flops()
        torch.autograd.backward([value.sum() for value in outputs if value.requires_grad])
        return forward, counter.get_total_flops() - forward


def estimate(config: TrainConfig, options: DryRunOptions) -> Iterator[str]:
    """Yield lines on parameters, steps, operations and hours."""
    check_at_least(1, gpus=options.gpus)
    check(0 < options.mfu <= 1, "mfu", "must be above 0 and at most 1", options.mfu)
    peak = peak_flops(options.gpu, config.precision)
    if peak is None:
        rule = f"must be a GPU whose peak in {config.precision} is known, such as NVIDIA H100"
        raise UserError("gpu", rule, options.gpu)
    with torch.device("meta"):
        model = ProLIP(config.model)
    lock_parameters(model, config.lock)
    total, trained = parameter_counts(model)
    per_sample = step_flops(config).total / config.samples_per_step
    hours = config.total_steps * config.samples_per_step * per_sample / (peak * options.mfu) / 3600
    yield f"model      {config.architecture}, {count(total)} parameters, {count(trained)} trained"
    yield f"steps      {config.total_steps:,} of {config.step_sizes}, {count(config.samples_seen)} samples"
    yield (
        f"compute    {per_sample / 1e9:.4g} GFLOPs per sample: {hours:,.2f} GPU-hours of {options.gpu} at "
        f"{options.mfu:.0%} of its {peak / 1e12:g} TFLOPS in {config.precision}, {hours / options.gpus:,.2f} hours on "
        f"{options.gpus}"
    )


def parameter_counts(model: ProLIP) -> tuple[int, int]:
    """All parameters, and those that are trained."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained)


def count(number: float) -> str:
    """With a unit: 1.28 B, 150 M, 12 k."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.4g} {unit}"
    return f"{number:g}"


# Dense TFLOPS with fp32 accumulation, by words of the device name in CUDA; the first row whose words are all in the
# name counts. From NVIDIA's data sheets (A100 of June 2021, H100 and H200 of 2024, L40S, L40, L4, A10, A30, A40, T4,
# V100 of January 2020, HGX B200), with figures "with sparsity" halved, and for GeForce and workstation cards from the
# white papers of the GA102, AD102 and GB202 chips.
_PEAKS = (
    # Words of the name, 16 bits, fp32.
    ("b200", 2250, 75),
    ("h200 nvl", 835.5, 60),
    ("h200", 989.5, 67),
    ("h100 nvl", 835.5, 60),
    ("h100 pcie", 756, 51),
    ("h100", 989.5, 67),
    ("a100", 312, 19.5),
    ("a40", 149.7, 37.4),
    ("a30", 165, 10.3),
    ("a10", 125, 31.2),
    ("l40s", 362.05, 91.6),
    ("l40", 181.05, 90.5),
    ("l4", 121, 30.3),
    ("v100 pcie", 112, 14),
    ("v100", 125, 15.7),
    ("t4", 65, 8.1),
    ("rtx 5090", 209.5, 104.8),
    ("rtx 4090", 165.2, 82.6),
    ("rtx 3090", 71, 35.6),
    ("rtx 6000 ada", 364.2, 91.1),
    ("rtx a6000", 154.8, 38.7),
)
_WITHOUT_BF16 = ("v100", "t4")
# In names of other cards, or of a slice of one.
_OTHER_CARDS = frozenset({"laptop", "ti", "super", "d", "mig", "max", "mobile"})


def peak_flops(device_name: str, precision: Precision) -> float | None:
    """Per second; None if the table lacks the device, named as by `torch.cuda.get_device_name`, or the precision."""
    words = set(re.split(r"[^a-z0-9]+", device_name.lower()))
    if words & _OTHER_CARDS:
        return None
    if precision == "bf16" and words.intersection(_WITHOUT_BF16):
        return None
    peaks = (full if precision == "fp32" else half for names, half, full in _PEAKS if words.issuperset(names.split()))
    peak = next(peaks, None)
    return None if peak is None else peak * 1e12
