"""A training step beside that of the published code's structure: the same numbers, samples a second, peak memory."""

import statistics
from dataclasses import replace
from typing import Any, NamedTuple, cast

import pytest
import torch
from tests.bench.published_step import PublishedModel, PublishedStep
from tests.bench.side_by_side import table
from tests.bench.step_sides import (
    LOSS,
    MASK,
    SMALL,
    TINY,
    images_and_ids,
    masked_step,
    processes,
)
from tests.support.small_step import run_of

from prolip.models import ProLIP
from prolip.train.config.optim import OptimConfig
from prolip.train.loop import take_step
from prolip.train.optim import learning_rate

MAX_MEMORY = 1.12
"""Peak memory over that of the published step with freed memory kept."""
SIDES = ("published", "published, memory kept", "ours")


def test_our_step_and_the_published_step_give_equal_weights():
    mask = replace(MASK, masked_fraction=0.5, mask_id=49)
    optim = OptimConfig(lr=1e-2, warmup_steps=2)
    torch.manual_seed(1)
    model, published = ProLIP(TINY).double(), PublishedModel(TINY).double()
    published.load_state_dict(model.state_dict())
    theirs = PublishedStep(published, LOSS, optim, mask)
    ours = run_of(model, precision="fp32", loss=LOSS, optim=optim)
    images, ids = images_and_ids(TINY, 6)
    for seed in range(3):
        torch.manual_seed(seed)
        expected = theirs(images.double(), ids, learning_rate(optim, seed, ours.config.total_steps))
        torch.manual_seed(seed)
        found = take_step(ours, cast(Any, masked_step(TINY, images.double(), ids, mask)))[0].total
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
        gradients = {name: parameter.grad for name, parameter in published.named_parameters()}
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-6, atol=1e-9, msg=name)
    for name, tensor in published.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=1e-6, atol=1e-8, msg=name)


@pytest.mark.bench
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("precision", "least"), [("bf16", 1.3), ("fp32", 1.0)])
def test_our_step_is_faster_and_needs_less_memory_than_the_published(precision, least, capsys, full):
    batch, rounds_of, config = (64, 5, SMALL) if full else (16, 1, TINY)
    with processes(SIDES, precision, batch, config) as sides:
        first = [side.step() for side in sides]
        rounds = [[side.step() for side in sides] for _ in range(rounds_of)]
        memory = [side.peak_mebibytes() for side in sides]
    rows = []
    for place, name in enumerate(SIDES):
        clock, cpu = ([getattr(turn[place], kind) for turn in rounds] for kind in ("seconds", "cpu_seconds"))
        rate, seconds = batch / statistics.median(clock), statistics.median(cpu)
        times = [spread(rounds, place, kind) for kind in ("seconds", "cpu_seconds")]
        rows.append((name, f"{rate:.2f}", str(times[0]), f"{seconds:.2f} s", str(times[1]), f"{memory[place]:,.0f}"))
    with capsys.disabled():
        print(table((f"{precision}, batch {batch}", "samples/s", "ours is", "CPU", "ours is", "peak MiB"), rows))
    losses = [turn.loss for turn in first]
    assert losses == pytest.approx([losses[0]] * len(SIDES), rel=0.01 if precision == "bf16" else 1e-4)
    if full:
        assert spread(rounds, 0, "cpu_seconds").median >= least
        assert memory[-1] <= MAX_MEMORY * memory[1]


class Times(NamedTuple):
    """How many times as fast as a side ours is, the last one: of neighbouring turns."""

    median: float
    low: float
    high: float

    def __str__(self):
        return f"{self.median:.2f} × ({self.low:.2f} – {self.high:.2f})"


def spread(rounds, place, kind):
    ratios = sorted(getattr(turn[place], kind) / getattr(turn[-1], kind) for turn in rounds)
    return Times(statistics.median(ratios), ratios[0], ratios[-1])
