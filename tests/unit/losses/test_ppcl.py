"""PPCL in tiles against its equation: values, gradients, precision; and its memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from prolip.distributed import Peers
from prolip.gaussian import Gaussian
from prolip.losses.clip import clip_loss
from prolip.losses.ppcl import _pair_sum, ppcl, ppcl_reference

Leaves = list[Tensor]
"""Image mean, image log variance, text mean, text log variance, scale, bias."""


def leaves_of(items: int, slots: int, dim: int, *, dtype: torch.dtype = torch.float64, bias: float = -3.0) -> Leaves:
    generator = torch.Generator().manual_seed(items + 100 * slots + 1000 * dim)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    found = [
        F.normalize(normal(items, dim), dim=-1),
        normal(items, dim) - 4,
        F.normalize(normal(slots, items, dim), dim=-1),
        normal(slots, items, dim) - 4,
        torch.tensor(12.0),
        torch.tensor(bias),
    ]
    return [leaf.to(dtype).requires_grad_() for leaf in found]


def tiled(leaves: Sequence[Tensor], tile: int = 512) -> Tensor:
    return ppcl(Gaussian(*leaves[:2]), Gaussian(*leaves[2:4]), leaves[4], leaves[5], Peers(), tile=tile)


def reference(leaves: Sequence[Tensor]) -> Tensor:
    return ppcl_reference(Gaussian(*leaves[:2]), Gaussian(*leaves[2:4]), leaves[4], leaves[5])


def test_the_reference_equals_the_equation_pair_by_pair() -> None:
    """Pair by pair, in plain Python."""
    leaves = [leaf.detach() for leaf in leaves_of(3, 2, 4)]
    image, image_var, text, text_var = (leaves[0], leaves[1].exp(), leaves[2], leaves[3].exp())
    scale, bias, total = float(leaves[4]), float(leaves[5]), 0.0
    for slot, i, j in itertools.product(range(2), range(3), range(3)):
        similarity = float(image[i] @ text[slot, j] - (image_var[i] + text_var[slot, j]).sum() / 2)
        logit = scale * similarity + bias
        total += math.log1p(math.exp(-logit if i == j else logit))
    assert float(reference(leaves)) == pytest.approx(total / (2 * 3), rel=1e-12)


@given(items=st.integers(1, 70), slots=st.integers(1, 3), dim=st.integers(1, 9), tile=st.integers(1, 80))
@settings(max_examples=60)
def test_tiled_loss_and_gradients_equal_the_reference_for_any_tile(items: int, slots: int, dim: int, tile: int) -> None:
    leaves = leaves_of(items, slots, dim)
    expected, found = reference(leaves), tiled(leaves, tile)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    # A factor stands for the term's weight.
    wanted = torch.autograd.grad(0.3 * expected, leaves)
    for ours, theirs in zip(torch.autograd.grad(0.3 * found, leaves), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("bias", [-60.0, -10.0, 0.0, 10.0, 60.0])
def test_small_and_large_logits_keep_their_precision(bias: float) -> None:
    leaves = leaves_of(64, 1, 16, bias=bias)
    torch.testing.assert_close(tiled(leaves), reference(leaves), rtol=1e-13, atol=0)
    single = leaves_of(64, 1, 16, dtype=torch.float32, bias=bias)
    torch.testing.assert_close(tiled(single).double(), reference(leaves), rtol=2e-6, atol=0)


def test_gradients_that_are_not_required_are_not_computed() -> None:
    leaves = leaves_of(8, 1, 4)
    with torch.no_grad():
        assert not tiled(leaves).requires_grad
    torch.testing.assert_close(tiled(leaves).detach(), tiled([leaf.detach() for leaf in leaves]))
    frozen = [leaf.detach() if place < 2 else leaf for place, leaf in enumerate(leaves)]
    tiled(frozen).backward()
    assert frozen[0].grad is None
    wanted = torch.autograd.grad(reference(leaves), leaves)
    for ours, theirs in zip(frozen[2:], wanted[2:], strict=True):
        torch.testing.assert_close(ours.grad, theirs)


def test_low_precision_inputs_are_accumulated_in_float32() -> None:
    low = [leaf.detach().bfloat16().requires_grad_() for leaf in leaves_of(64, 1, 32)]
    exact = [leaf.detach().double().requires_grad_() for leaf in low]
    with torch.autocast("cpu", torch.bfloat16):
        found = tiled(low)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), reference(exact), rtol=1e-5, atol=0)
    found.backward()
    reference(exact).backward()
    for ours, theirs in zip(low, exact, strict=True):
        assert ours.grad is not None
        assert ours.grad.dtype == torch.bfloat16
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=2**-7, atol=1e-4, check_dtype=False)


def test_no_tensor_is_larger_than_a_tile_or_the_inputs() -> None:
    items, dim, tile = 256, 8, 16
    leaves = leaves_of(items, 2, dim)
    kept = 0

    def note(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept = max(kept, tensor.numel())
        return tensor

    tiled(leaves, tile).backward()  # whatever is made once
    with (
        profile(activities=[ProfilerActivity.CPU], record_shapes=True) as recorded,
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
    ):
        tiled(leaves, tile).backward()
    assert kept <= 2 * items * dim
    shapes = [torch.Size(shape) for event in recorded.events() for shape in event.input_shapes if shape]
    assert torch.Size([items, tile]) in shapes
    assert max(shape.numel() for shape in shapes) == max(items * tile, 2 * items * dim)


def test_the_operator_passes_torchs_opcheck() -> None:
    leaves, peers = leaves_of(5, 2, 3), Peers()
    image, text = ([leaves[place], leaves[place + 1].exp().sum(-1).detach().requires_grad_()] for place in (0, 2))
    rules = ("test_schema", "test_autograd_registration", "test_faketensor")
    for training in (True, False):
        arguments = (image, text, leaves[4:], peers.number, False, 2, training)
        torch.library.opcheck(_pair_sum, arguments, test_utils=rules)


@pytest.mark.parametrize("alone", [True, False])
def test_second_derivatives_are_refused(alone: bool) -> None:
    """They were left out in silence, so a penalty on gradients had other gradients than its own."""
    leaves = leaves_of(4, 1, 3)
    scaled = [leaves[0] * 1.0, *leaves[1:]]
    image, text, scale, bias = Gaussian(*scaled[:2]), Gaussian(*scaled[2:4]), *scaled[4:]
    for loss in (ppcl(image, text, scale, bias, Peers()), clip_loss(image.mean, text.mean, scale, Peers())):
        (grad,) = torch.autograd.grad(loss, leaves[0], create_graph=True)
        penalty = grad.square().sum()
        with pytest.raises(RuntimeError, match="no second derivatives"):
            torch.autograd.grad(penalty if alone else penalty + loss, leaves[0])
