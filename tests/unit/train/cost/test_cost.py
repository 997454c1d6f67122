"""The estimated cost of a step against torch's own counters."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from prolip.data import CaptionConfig, MaskConfig, NativeConfig
from prolip.distributed import Peers
from prolip.losses import ProlipLoss
from prolip.losses.config import LossConfig
from prolip.losses.ppcl import _Side, _Visit
from prolip.models import ARCHITECTURES, ModelConfig, ProLIP, TextConfig, VisionConfig
from prolip.train.accumulate import backward
from prolip.train.config import TrainConfig
from prolip.train.cost import blank, count_parameters, mean_step_flops, peak_flops, step_flops

VISION = VisionConfig(image_size=24, patch_size=6, width=16, head_width=8, layers=2, embed_unc=True)
TEXT = TextConfig(context_length=5, vocab_size=11, width=16, heads=2, layers=3)
TINY = ModelConfig(embed_dim=16, vision=VISION, text=TEXT, init_logit_bias=-10.0)
BATCH, SLOTS = 8, 2
MASK = MaskConfig(masked_fraction=0.25, keep_ratio=0.5)

SHAPES = {
    "released": TINY,
    "[UNC] read": replace(TINY, embed_dim=12, text=replace(TEXT, log_var_source="unc", mlp_ratio=3.0)),
    "CLIP's": replace(
        TINY,
        text=replace(TEXT, embed_cls=False, no_causal_mask=False, proj_bias=False, log_var_source="unc"),
        vision=replace(VISION, final_norm="once", no_ln_pre=True),
    ),
    "SigLIP's": replace(
        TINY,
        text=replace(TEXT, embed_cls=False, pool_type="last", log_var_source="unc"),
        vision=replace(VISION, pool_type="map", no_ln_pre=True),
    ),
    "layer scales": replace(TINY, vision=replace(VISION, ls_init_value=0.1), text=replace(TEXT, ls_init_value=0.1)),
}


def batch(model: ModelConfig, *, masked: bool = True, items: int = BATCH, columns: int = 4) -> SimpleNamespace:
    """Images of four rows of patches."""
    num_masked, kept = int(items * MASK.masked_fraction), int(4 * columns * MASK.keep_ratio)
    ids = torch.randint(model.text.vocab_size, (SLOTS, items, model.text.context_length))
    return SimpleNamespace(
        images=torch.randn(items, 3, 24, 6 * columns),
        token_ids=ids,
        masked_token_ids=ids[:, :num_masked] if masked else None,
        kept_patches=torch.arange(kept).expand(num_masked, -1) if masked else None,
    )


def counted(model: ProLIP, inputs: SimpleNamespace, *, parts: int = 1) -> int:
    """What torch counts in the towers of a step, forward and backward; the loss's own operator is closed to it."""
    loss = ProlipLoss(LossConfig(), Peers())
    with FlopCounterMode(display=False) as counter:
        backward(model, loss, cast(Any, inputs), micro_batches=parts)
    return int(counter.get_total_flops())


# ---- Parameters -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_parameter_counts_equal_the_models(name):
    counts = count_parameters(blank(ARCHITECTURES[name]))
    if name == "demo":
        assert counts.total == sum(parameter.numel() for parameter in ProLIP(ARCHITECTURES[name]).parameters())
    assert counts.trained == counts.total
    assert counts.similarity == 2


# ---- FLOPs ----------------------------------------------------------------------------------------------------------


def only(*parts: str) -> Callable[[ProLIP], None]:
    """Lets only parameters train whose names have one of some parts."""

    def lock(model: ProLIP) -> None:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(any(part in name for part in parts))

    return lock


LOCKS: dict[str, Callable[[ProLIP], None]] = {
    "image": only("text.", "logit"),
    "text but its top": only("visual.", "logit", "text.transformer.resblocks.2", "text.ln_final"),
    "all but [UNC]": only("uncertainty_proj", "unc_emb"),
    "all but the pool's query": only("uncertainty_proj", "attn_pool.latent"),
}


CASES: list[tuple[str, str | None, bool, int, int]] = [
    *((shape, None, True, 1, 0) for shape in SHAPES),
    ("released", None, False, 3, 0),
    *(("SigLIP's", lock, True, 1, 0) for lock in LOCKS),
    ("layer scales", None, True, 1, 1),
    ("SigLIP's", "image", True, 1, 2),
]
"""Shape, lock, whether samples are masked, parts of the step, which blocks are recomputed."""


@pytest.mark.parametrize(("shape", "lock", "masked", "parts", "every"), CASES)
def test_flops_equal_those_of_the_whole_step(shape, lock, masked, parts, every):
    """The count skips equal blocks."""
    config = SHAPES[shape]
    vision, text = replace(config.vision, layers=5), replace(config.text, layers=6)
    model = ProLIP(replace(config, vision=vision, text=text))
    if lock is not None:
        LOCKS[lock](model)
    for stack in (model.visual.transformer, model.text.transformer):
        stack.recompute_every = every
    flops = step_flops(
        model, MASK if masked else None, batch_size=BATCH, slots=SLOTS, accumulate=parts, recompute_every=every
    )
    assert flops.total - flops.loss == counted(model, batch(config, masked=masked), parts=parts)
    assert flops.recomputed == (flops.forward if parts > 1 else 0) or every


def test_flops_of_native_images_are_the_mean_over_their_kinds_of_step():
    native = NativeConfig(seq_lens=(64, 96), seq_len_probs=(1, 3), token_budget=768, batch_divisor=4)
    config = TrainConfig(
        samples_seen=96,
        model=replace(TINY, vision=replace(VISION, image_seq_len=96)),
        data=replace(TrainConfig().data, native=native, mask=MASK, captions=(CaptionConfig(),) * SLOTS),
    )
    model = ProLIP(config.model)
    found = [counted(model, batch(TINY, items=items, columns=columns)) for items, columns in ((12, 16), (8, 24))]
    flops = mean_step_flops(config)
    # The interpolation of positions is left out.
    assert flops.total - flops.loss == pytest.approx((found[0] + 3 * found[1]) / 4, rel=0.02)


def test_the_flops_of_the_loss_equal_those_that_torch_counts():
    mean, var = torch.randn(SLOTS, BATCH, 16), torch.rand(SLOTS, BATCH)
    product = flop_registry[torch.ops.aten.mm]
    in_place = {torch.ops.aten.addmm_: lambda _, *factors, **rest: product(*factors[:2])}  # torch passes it over
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        image, text, logit = _Side(mean[0], var[0]), _Side(mean, var), (torch.tensor(10.0), torch.tensor(-10.0))
        _Visit(image, text, *logit, tile=512, training=True).local()
    model = blank(TINY)
    assert step_flops(model, None, batch_size=BATCH, slots=SLOTS).loss == counter.get_total_flops()
    assert step_flops(model, None, batch_size=BATCH, slots=SLOTS, world_size=4).loss == 4 * counter.get_total_flops()


# ---- Devices --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "precision", "tflops"),
    [
        ("NVIDIA A100-SXM4-80GB", "bf16", 312),
        ("NVIDIA A100-SXM4-40GB", "tf32", 156),
        ("NVIDIA H100 80GB HBM3", "bf16", 989.5),
        ("NVIDIA H200", "fp32", 67),
        ("NVIDIA L40S", "bf16", 362.05),
        ("Tesla V100-SXM2-16GB", "bf16", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16", None),
        ("cpu", "fp32", None),
    ],
)
def test_peak_flops_of_known_and_unknown_devices(name, precision, tflops):
    assert peak_flops(name, precision) == (None if tflops is None else tflops * 1e12)
