"""The estimated FLOPs of a step against torch's count of a real step, and the peaks of GPUs."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from prolip.data import CaptionConfig, MaskConfig, NativeConfig
from prolip.distributed import Peers
from prolip.losses import ProlipLoss
from prolip.losses.config import LossConfig
from prolip.models import ModelConfig, ProLIP, TextConfig, VisionConfig
from prolip.models.config import LockConfig
from prolip.models.lock import lock_parameters
from prolip.train.accumulate import backward
from prolip.train.config import ParallelConfig, TrainConfig
from prolip.train.config.options import DryRunOptions
from prolip.train.cost import estimate, peak_flops, step_flops

VISION = VisionConfig(image_size=24, patch_size=6, width=16, head_width=8, layers=2, embed_unc=True)
TEXT = TextConfig(context_length=5, vocab_size=11, width=16, heads=2, layers=3)
MODEL = ModelConfig(embed_dim=16, vision=VISION, text=TEXT, init_logit_bias=-10.0)
BATCH, SLOTS = 8, 2
DATA = replace(
    TrainConfig().data,
    mask=MaskConfig(masked_fraction=0.25, keep_ratio=0.5),
    captions=(CaptionConfig(),) * SLOTS,
)
CONFIG = TrainConfig(samples_seen=96, batch_size=BATCH, model=MODEL, data=DATA)


def of_the_loss(items):
    """The similarity of all pairs, and its gradients for both means."""
    return 6 * SLOTS * items * items * MODEL.embed_dim


def counted(config, items=BATCH, columns=4):
    """What torch counts in the towers of a step on images of four rows of patches; it cannot look into the loss."""
    model = ProLIP(config.model)
    lock_parameters(model, config.lock)
    for tower in (model.visual, model.text):
        tower.transformer.recompute_every = config.parallel.recompute_every
    masked = 0 if config.data.masking is None else items // 4
    ids = torch.randint(TEXT.vocab_size, (SLOTS, items, TEXT.context_length))
    batch = SimpleNamespace(
        images=torch.randn(items, 3, 24, 6 * columns),
        token_ids=ids,
        masked_token_ids=ids[:, :masked] if masked else None,
        kept_patches=torch.arange(2 * columns).expand(masked, -1) if masked else None,
    )
    with FlopCounterMode(display=False) as counter:
        backward(model, ProlipLoss(LossConfig(), Peers()), batch, micro_batches=config.accumulate)
    return counter.get_total_flops()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"data": replace(DATA, mask=None), "accumulate": 3},
        {"lock": LockConfig(image=True)},
        {"parallel": ParallelConfig(recompute_every=1)},
    ],
    ids=str,
)
def test_flops_equal_those_of_a_real_step(changes):
    config = replace(CONFIG, **changes)
    flops = step_flops(config)
    assert flops.total == counted(config) + of_the_loss(BATCH)
    assert (flops.useful < flops.total) == bool({"accumulate", "parallel"} & changes.keys())


def test_flops_of_native_images_are_the_mean_over_their_kinds_of_step():
    native = NativeConfig(seq_lens=(64, 96), seq_len_probs=(1, 3), token_budget=768, batch_divisor=4)
    model = replace(MODEL, vision=replace(VISION, image_seq_len=96))
    config = replace(CONFIG, model=model, data=replace(DATA, native=native))
    flops = step_flops(config)
    kinds = [counted(config, *kind) + of_the_loss(kind[0]) for kind in ((12, 16), (8, 24))]
    # The interpolation of positions is left out.
    assert flops.total == pytest.approx((kinds[0] + 3 * kinds[1]) / 4, rel=0.02)


def test_hours_are_operations_over_speed():
    config = replace(CONFIG, samples_seen=10**15)
    *_, compute = estimate(config, DryRunOptions(gpu="NVIDIA H100 80GB HBM3", mfu=0.5, gpus=4))
    hours = 10**15 / BATCH * step_flops(config).total / (989.5e12 / 2) / 3600
    assert f" {hours:,.2f} GPU-hours" in compute
    assert f" {hours / 4:,.2f} hours on 4" in compute


@pytest.mark.parametrize(
    ("name", "precision", "tflops"),
    [
        ("NVIDIA A100-SXM4-40GB", "fp32", 19.5),
        ("NVIDIA H100 80GB HBM3", "bf16", 989.5),
        ("Tesla V100-SXM2-16GB", "bf16", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16", None),
        ("cpu", "fp32", None),
    ],
)
def test_peak_flops_of_known_and_unknown_devices(name, precision, tflops):
    assert peak_flops(name, precision) == (None if tflops is None else tflops * 1e12)
