"""PPCL, forward and backward, against a plain version of the released one: time and peak memory.

The released code adds the variances of every pair in every dimension before it sums them, and so does the plain version
(written from specification §3). Both sides compute the same loss on the same data, in turns:
`pytest -m bench tests/bench -s`.
"""

import pytest
import torch
import torch.nn.functional as F
from tests.bench.side_by_side import in_turns, one_thread, peak_bytes, table

from prolip.distributed import Peers
from prolip.gaussian import Gaussian
from prolip.losses.ppcl import ppcl

DIM = 768
MIN_TIME, MIN_MEMORY = 15.0, 50.0
"""What must hold on any machine that is not too busy; the measured ratios are printed."""


def leaves_of(items):
    """Image and text means and log variances, scale and bias, as early in training."""
    generator = torch.Generator().manual_seed(items)
    found = []
    for _ in range(2):
        found.append(F.normalize(torch.randn(items, DIM, generator=generator), dim=-1))
        found.append(0.1 * torch.randn(items, DIM, generator=generator) - 6)
    return [leaf.requires_grad_() for leaf in (*found, torch.tensor(10.0), torch.tensor(-10.0))]


def published(leaves):
    image, image_log_var, text, text_log_var, scale, bias = leaves
    spread = (image_log_var.exp()[:, None] + text_log_var.exp()[None]).sum(-1)
    logits = scale * (image @ text.T - spread / 2) + bias
    labels = 2 * torch.eye(len(image)) - 1
    return -F.logsigmoid(labels * logits).sum() / len(image)


def ours(leaves):
    image, image_log_var, text, text_log_var, scale, bias = leaves
    return ppcl(Gaussian(image, image_log_var), Gaussian(text[None], text_log_var[None]), scale, bias, Peers())


@pytest.mark.bench
def test_the_loss_is_faster_and_needs_less_memory_than_the_published(capsys, full):
    items = (512, 2048, 8192) if full else (8, 16, 32)
    leaves = leaves_of(items[0])
    sides = [lambda side=side: torch.autograd.grad(side(leaves), leaves) for side in (published, ours)]
    with one_thread():
        # Scale and bias are sums over all pairs, in which the two orders of adding differ by some of the last digits.
        for one, other in zip(*(side() for side in sides), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
        time = in_turns(*sides, rounds=7 if full else 1)
        memory = [peak_bytes(side) for side in sides]
        larger = [
            peak_bytes(lambda leaves=leaves: torch.autograd.grad(ours(leaves), leaves))
            for leaves in map(leaves_of, items)
        ]
    ratio = memory[0] / memory[1]
    sizes = [(f"{count:,}", f"{peak / 2**20:.1f} MiB") for count, peak in zip(items, larger, strict=True)]
    with capsys.disabled():
        print(f"\ncontrastive loss, {items[0]} x {items[0]} pairs x {DIM}: {time}")
        print(f"peak memory {memory[0] / 2**20:,.0f} MiB against {memory[1] / 2**20:.1f} MiB: {ratio:.0f} times")
        print(table(("images", "peak memory of ours"), sizes))
    if full:
        assert time.ratio > MIN_TIME
        assert ratio > MIN_MEMORY
        # Linear: sixteen times the images take about sixteen times the memory, where pairs would take 256.
        assert 12 < larger[2] / larger[0] < 18
