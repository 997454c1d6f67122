"""The contrastive controls, SigLIP's and CLIP's loss: values and gradients against open_clip's own, memory."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.loss import ClipLoss, SigLipLoss
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from prolip.distributed import Peers
from prolip.gaussian import Gaussian
from prolip.losses import ProlipLoss, clip_loss
from prolip.losses.clip import _entropy_sum
from prolip.losses.config import Contrast, LossConfig
from prolip.models import ProLIPOutput

Leaves = list[Tensor]
"""Image mean, text mean, scale, bias."""


def leaves_of(items: int, slots: int, dim: int, *, scale: float = 12.0) -> Leaves:
    generator = torch.Generator().manual_seed(items + 100 * slots + 1000 * dim)
    shapes = (items, dim), (slots, items, dim)
    means = [F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1) for shape in shapes]
    scalars = [torch.tensor(value, dtype=torch.float64) for value in (scale, -3.0)]
    return [leaf.requires_grad_() for leaf in (*means, *scalars)]


def ours(contrast: Contrast, leaves: Leaves) -> Tensor:
    """The loss as in a run. Log variances are given, and must not matter."""
    image, text, scale, bias = leaves
    towers = [Gaussian(mean, torch.zeros_like(mean)) for mean in (image, text)]
    only = LossConfig(contrast=contrast, inclusion_weight=0.0, masked_inclusion_weight=0.0, vib_weight=0.0)
    output = ProLIPOutput(*towers, None, None, scale, bias)
    return ProlipLoss(only, Peers())(output).total


def open_clips(contrast: Contrast, leaves: Leaves) -> Tensor:
    """open_clip's loss, averaged over slots."""
    image, text, scale, bias = leaves
    if contrast == "clip":
        loss: Callable[[Tensor], Tensor] = lambda slot: ClipLoss()(image, slot, scale)  # noqa: E731
    else:
        loss = lambda slot: SigLipLoss()(image, slot, scale, bias)  # noqa: E731
    return torch.stack([loss(slot) for slot in text]).mean()


@pytest.mark.parametrize("contrast", ["siglip", "clip"])
@pytest.mark.parametrize("scale", [1.0, 12.0, 100.0])
def test_the_clip_and_siglip_losses_equal_open_clips(contrast: Contrast, scale: float) -> None:
    leaves = leaves_of(9, 2, 5, scale=scale)
    found, expected = ours(contrast, leaves), open_clips(contrast, leaves)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=0)
    trained = leaves if contrast == "siglip" else leaves[:3]
    wanted = torch.autograd.grad(0.3 * expected, trained)
    for mine, theirs in zip(torch.autograd.grad(0.3 * found, trained), wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def tiled(leaves: Leaves, tile: int) -> Tensor:
    return clip_loss(*leaves[:3], Peers(), tile=tile)


@given(items=st.integers(1, 70), slots=st.integers(1, 3), dim=st.integers(1, 9), tile=st.integers(1, 80))
@settings(max_examples=40)
def test_tiled_loss_and_gradients_equal_open_clips_for_any_tile(items: int, slots: int, dim: int, tile: int) -> None:
    leaves = leaves_of(items, slots, dim)
    found, expected = tiled(leaves, tile), open_clips("clip", leaves)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-13)
    wanted = torch.autograd.grad(expected, leaves[:3])
    for mine, theirs in zip(torch.autograd.grad(found, leaves[:3]), wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_float32_keeps_its_precision_at_the_largest_scale() -> None:
    exact = leaves_of(64, 1, 16, scale=100.0)
    single = [leaf.detach().float().requires_grad_() for leaf in exact]
    torch.testing.assert_close(tiled(single, 16).double(), tiled(exact, 16), rtol=2e-6, atol=0)
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])  # every true pair as far apart as can be
    wrong = clip_loss(opposite, -opposite[None], torch.tensor(100.0), Peers())
    assert float(wrong) == pytest.approx(200.0)


def test_without_gradients_the_loss_is_the_same() -> None:
    leaves = leaves_of(8, 2, 4)
    detached = [leaf.detach() for leaf in leaves]
    torch.testing.assert_close(tiled(detached, 3), tiled(leaves, 3).detach())
    frozen = [detached[0], *leaves[1:]]
    image, text, scale, _ = leaves
    found = torch.autograd.grad(tiled(frozen, 3), [text, scale])
    for mine, theirs in zip(found, torch.autograd.grad(tiled([image, text, scale], 3), [text, scale]), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_no_tensor_is_larger_than_a_tile_or_the_inputs() -> None:
    items, dim, tile = 256, 8, 16
    leaves = leaves_of(items, 2, dim)
    tiled(leaves, tile).backward()  # whatever is made once
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as recorded:
        tiled(leaves, tile).backward()
    shapes = [torch.Size(shape) for event in recorded.events() for shape in event.input_shapes if shape]
    assert torch.Size([items, tile]) in shapes
    assert max(shape.numel() for shape in shapes) <= max(items * tile, 4 * items * dim)


def test_the_operator_passes_torchs_opcheck() -> None:
    leaves, peers = leaves_of(5, 2, 3)[:3], Peers()
    rules = ("test_schema", "test_autograd_registration", "test_faketensor")
    for training in (True, False):
        torch.library.opcheck(_entropy_sum, (leaves, peers.number, False, 2, training), test_utils=rules)


def test_a_control_takes_points_and_clip_no_bias() -> None:
    image, text, scale, bias = leaves_of(4, 1, 3)
    points = ProLIPOutput(Gaussian.point(image), Gaussian.point(text), None, None, scale, None)
    off = {"inclusion_weight": 0.0, "masked_inclusion_weight": 0.0, "vib_weight": 0.0}
    terms = ProlipLoss(LossConfig(contrast="clip", **off), Peers())(points)
    assert all(math.isfinite(float(term.detach())) for term in terms)
    terms.total.backward()
    with pytest.raises(ValueError, match="no similarity bias"):
        ProlipLoss(LossConfig(contrast="siglip", **off), Peers())(points)
    siglip = ProlipLoss(LossConfig(contrast="siglip", **off), Peers())(points._replace(logit_bias=bias))
    torch.testing.assert_close(siglip.ppcl, open_clips("siglip", [image, text, scale, bias]))
