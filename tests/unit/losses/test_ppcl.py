"""The contrastive loss in tiles against its equation, `ppcl_reference`: values, gradients, precision, memory.

The control is open_clip's SigLIP loss.
"""

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from open_clip.loss import SigLipLoss
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from prolip.distributed import Peers
from prolip.gaussian import Gaussian
from prolip.losses import LossConfig, ProlipLoss
from prolip.losses.ppcl import ppcl, ppcl_reference
from prolip.models import ProLIPOutput

Leaves = Sequence[Tensor]
"""Image mean, image log variance, text mean, text log variance, scale, bias."""


def leaves_of(items, slots, dim, *, scale=12.0, bias=-3.0):
    generator = torch.Generator().manual_seed(items + 100 * slots + 1000 * dim)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    found = [
        F.normalize(normal(items, dim), dim=-1),
        normal(items, dim) - 4,
        F.normalize(normal(slots, items, dim), dim=-1),
        normal(slots, items, dim) - 4,
        torch.tensor(scale, dtype=torch.float64),
        torch.tensor(bias, dtype=torch.float64),
    ]
    return [leaf.requires_grad_() for leaf in found]


def tiled_ppcl(leaves, tile=512):
    return ppcl(Gaussian(*leaves[:2]), Gaussian(*leaves[2:4]), leaves[4], leaves[5], Peers(), tile=tile)


def reference(leaves):
    return ppcl_reference(Gaussian(*leaves[:2]), Gaussian(*leaves[2:4]), leaves[4], leaves[5])


def gradients(loss, leaves):
    return list(torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True))


@given(items=st.integers(1, 70), slots=st.integers(1, 3), dim=st.integers(1, 9), tile=st.integers(1, 80))
@settings(max_examples=40)
def test_tiled_loss_and_gradients_equal_the_equation(items, slots, dim, tile):
    leaves = leaves_of(items, slots, dim)
    found, expected = tiled_ppcl(leaves, tile), reference(leaves)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-13)
    for ours, theirs in zip(gradients(0.3 * found, leaves), gradients(0.3 * expected, leaves), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_a_siglip_run_equals_open_clips_loss_for_points_and_gaussians():
    leaves = leaves_of(9, 2, 5)
    image, _, text, _, scale, bias = leaves
    only = LossConfig(contrast="siglip", inclusion_weight=0.0, masked_inclusion_weight=0.0, vib_weight=0.0)
    expected = torch.stack([SigLipLoss()(image, slot, scale, bias) for slot in text]).mean()
    for towers in ([Gaussian.point(image), Gaussian.point(text)], [Gaussian(*leaves[:2]), Gaussian(*leaves[2:4])]):
        output = ProLIPOutput(*towers, None, None, scale, bias)
        found = ProlipLoss(only, Peers())(output).total
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=0)


@pytest.mark.parametrize("bias", [-60.0, -10.0, 0.0, 10.0, 60.0])
def test_small_and_large_logits_keep_their_precision(bias):
    leaves = leaves_of(64, 1, 16, bias=bias)
    torch.testing.assert_close(tiled_ppcl(leaves), reference(leaves), rtol=1e-13, atol=0)
    single = [leaf.float() for leaf in leaves]
    torch.testing.assert_close(tiled_ppcl(single).double(), reference(leaves), rtol=2e-6, atol=0)


def test_low_precision_inputs_are_accumulated_in_float32():
    low = [leaf.detach().bfloat16().requires_grad_() for leaf in leaves_of(64, 1, 32)]
    exact = [leaf.detach().double().requires_grad_() for leaf in low]
    with torch.autocast("cpu", torch.bfloat16):
        found = tiled_ppcl(low)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), reference(exact), rtol=1e-5, atol=0)
    for ours, theirs in zip(gradients(found, low), gradients(reference(exact), exact), strict=True):
        assert ours.dtype == torch.bfloat16
        torch.testing.assert_close(ours, theirs, rtol=2**-7, atol=1e-4, check_dtype=False)


def test_no_tensor_is_larger_than_a_tile_or_the_inputs():
    items, dim, tile = 256, 8, 16
    leaves = leaves_of(items, 2, dim)
    tiled_ppcl(leaves, tile).backward()  # whatever is made once
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as recorded:
        tiled_ppcl(leaves, tile).backward()
    shapes = [torch.Size(shape) for event in recorded.events() for shape in event.input_shapes if shape]
    assert torch.Size([items, tile]) in shapes
    assert max(shape.numel() for shape in shapes) <= max(items * tile, 4 * items * dim)


def test_second_derivatives_are_refused():
    leaves = leaves_of(4, 1, 3)
    (grad,) = torch.autograd.grad(tiled_ppcl([leaves[0] * 1.0, *leaves[1:]]), leaves[0], create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivatives"):
        torch.autograd.grad(grad.square().sum(), leaves[0])
