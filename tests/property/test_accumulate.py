"""Accumulated gradients equal those of the whole batch: masked terms and random numbers."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from tests.support.small_step import gradients, model_of, native_step_of, step_of
from torch import Tensor, nn


@pytest.mark.parametrize("form", ["square", "native"])
@given(items=st.integers(1, 9), masked=st.integers(0, 9), parts=st.integers(2, 9))
@settings(max_examples=25)
def test_accumulated_gradients_equal_those_of_the_whole_batch(form, items, masked, parts):
    native, masked = form == "native", min(masked, items)
    batch = native_step_of(items, masked) if native else step_of(items, masked)
    model, images = model_of(native=native).double(), batch.images
    if isinstance(images, Tensor):
        batch = batch._replace(images=images.double())
    else:
        batch = batch._replace(images=images._replace(patches=images.patches.double()))
    terms, whole = gradients(model, batch, 1)
    assert len(whole) == len(list(model.parameters()))
    in_parts, found = gradients(model, batch, min(parts, items))
    torch.testing.assert_close(torch.stack(in_parts), torch.stack(terms), rtol=1e-12, atol=1e-13)
    for name, gradient in whole.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-11, msg=name)


class Drawn(nn.Module):
    """A model with dropout on its images."""

    def __init__(self):
        super().__init__()
        self.model = model_of()

    def forward(self, images, *rest):
        output = self.model(F.dropout(images), *rest)
        return output


def test_the_second_pass_repeats_the_random_draws():
    network, batch = Drawn(), step_of(7, 3)
    calls = []
    network.model.visual.register_forward_pre_hook(lambda module, inputs: calls.append(inputs[0].detach()))
    torch.manual_seed(5)
    gradients(network, batch, 3)
    after = torch.rand(3)
    # Each micro-batch embeds whole and masked images twice, without a graph and with one, from the same values.
    assert len(calls) == 2 * 2 * 3
    for first, again in zip(calls[:6], calls[6:], strict=True):
        torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(calls[0], calls[2])
    # What is drawn next is what would be had the parts been embedded once.
    torch.manual_seed(5)
    for rows in ((3,), (2,), (2,)):
        F.dropout(torch.ones(*rows, 3, 12, 12))
    torch.testing.assert_close(torch.rand(3), after, rtol=0, atol=0)
