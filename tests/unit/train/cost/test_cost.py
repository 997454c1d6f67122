"""The estimated cost of a step against torch's own counters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from prolip.data import CaptionConfig, MaskConfig, NativeConfig
from prolip.distributed import Peers
from prolip.losses import ProlipLoss
from prolip.losses.config import LossConfig
from prolip.losses.ppcl import _Side, _Visit
from prolip.models import ARCHITECTURES, ModelConfig, ProLIP, TextConfig, VisionConfig, transformer
from prolip.train.accumulate import backward
from prolip.train.config import TrainConfig
from prolip.train.cost import blank, count_parameters, mean_step_flops, peak_flops, step_flops, step_memory

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
def test_parameter_counts_equal_the_models(name: str) -> None:
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
    "all but the heads": only("uncertainty_proj"),
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
def test_flops_equal_those_of_the_whole_step(
    shape: str, lock: str | None, masked: bool, parts: int, every: int
) -> None:
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


def test_flops_of_native_images_are_the_mean_over_their_kinds_of_step() -> None:
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


def test_the_flops_of_the_loss_equal_those_that_torch_counts() -> None:
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
        ("NVIDIA H100 PCIe", "bf16", 756),
        ("NVIDIA H200", "fp32", 67),
        ("NVIDIA L40S", "bf16", 362.05),
        ("NVIDIA L40", "bf16", 181.05),
        ("Tesla V100-SXM2-16GB", "fp16", 125),
        ("Tesla V100-SXM2-16GB", "bf16", None),
        ("NVIDIA GeForce RTX 4090", "bf16", 165.2),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "bf16", None),
        ("cpu", "fp32", None),
    ],
)
def test_peak_flops_of_known_and_unknown_devices(name: str, precision: str, tflops: float | None) -> None:
    assert peak_flops(name, precision) == (None if tflops is None else tflops * 1e12)  # type: ignore[arg-type]


# ---- Memory ---------------------------------------------------------------------------------------------------------


def kept_bytes(model: ProLIP, *, low: bool) -> int:
    """Bytes that the towers' forward pass keeps for the backward pass, weights and their rounded copies left out."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    shapes = {tuple(parameter.shape) for parameter in model.parameters()}
    shapes |= {shape[::-1] for shape in shapes}
    found: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and tuple(tensor.shape) not in shapes:
            found[storage.data_ptr()] = storage  # held, so that no other tensor gets its address
        return tensor

    given = batch(model.config)
    images = given.images.bfloat16() if low else given.images
    precision = torch.autocast("cpu", torch.bfloat16, enabled=low)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), precision:
        output = model(images, given.token_ids, given.masked_token_ids, given.kept_patches)
    del output
    return sum(storage.nbytes() for storage in found.values())


def wide(config: ModelConfig) -> ModelConfig:
    """Wide enough that what goes with the width outweighs a number a token."""
    vision, text = replace(config.vision, width=64, head_width=16), replace(config.text, width=64, heads=4)
    return replace(config, embed_dim=64, vision=vision, text=text)


@pytest.fixture
def like_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU takes the paths of a GPU: it keeps neither attention weights nor the output of a GELU."""

    def fused(packed: torch.Tensor, heads: int, mask: None) -> torch.Tensor:
        query, key, value = packed.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)

    monkeypatch.setattr(transformer._SelfAttention, "apply", fused)
    monkeypatch.setattr(transformer, "attend", F.scaled_dot_product_attention)
    monkeypatch.setattr(transformer, "recomputes_gelu", lambda hidden: True)


MEMORY_CASES = [(shape, None, low) for shape in ("released", "layer scales") for low in (False, True)]
MEMORY_CASES += [("released", lock, False) for lock in ("image", "text but its top", "all but [UNC]")]


@pytest.mark.usefixtures("like_a_gpu")
@pytest.mark.parametrize(("shape", "lock", "low"), MEMORY_CASES)
def test_activation_memory_is_within_a_tenth_of_what_torch_keeps(shape: str, lock: str | None, low: bool) -> None:
    model = ProLIP(wide(SHAPES[shape]))
    if lock is not None:
        LOCKS[lock](model)
    memory = step_memory(model, MASK, batch_size=BATCH, slots=SLOTS, low=low)
    pixel_bytes = BATCH * 3 * 24 * 24 * (2 if low else 4)
    assert memory.activations - pixel_bytes == pytest.approx(kept_bytes(model, low=low), rel=0.1)


def test_recomputed_blocks_keep_their_input() -> None:
    deep = replace(TINY, vision=replace(VISION, layers=6), text=replace(TEXT, layers=6))
    model = ProLIP(wide(deep))
    memory = partial(step_memory, model, MASK, batch_size=BATCH, slots=SLOTS, low=False)
    assert memory(recompute_every=1).activations < memory(recompute_every=2).activations < memory().activations


def test_memory_of_weights_gradients_and_moments_follows_the_parameters() -> None:
    model = ProLIP(TINY)
    model.visual.requires_grad_(False)
    counts = count_parameters(model)
    alone = step_memory(model, None, batch_size=BATCH, average=True, low=False)
    assert (alone.weights, alone.gradients, alone.moments) == (
        2 * 4 * counts.total, 4 * counts.trained, 8 * counts.trained
    )  # fmt: skip
    assert alone.cast_weights == 0
    hidden = sum(
        one.numel() for block in model.text.transformer.blocks() for one in block.parameters() if one.ndim == 2
    )
    assert step_memory(model, None, batch_size=BATCH, muon=True).moments == 8 * counts.trained - 4 * hidden
    shared = step_memory(model, None, batch_size=BATCH, shared_by=4)
    assert (shared.weights, shared.gradients, shared.moments) == (
        counts.total, counts.trained, 2 * counts.trained
    )  # fmt: skip
    assert shared.cast_weights < step_memory(model, None, batch_size=BATCH, shared_by=4, reshard=False).cast_weights
    halves = step_memory(model, MASK, batch_size=BATCH, accumulate=2)
    assert halves.per_sample == pytest.approx(step_memory(model, MASK, batch_size=BATCH).per_sample, rel=1e-3)
    assert halves.total == halves.state + halves.activations
