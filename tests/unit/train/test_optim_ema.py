"""Averaged weights against a loop over plain numbers."""

import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from prolip.train.config.optim import EmaConfig
from prolip.train.optim import Ema


@given(
    weights=st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=25),
    decay=st.floats(0, 0.999),
    every=st.integers(1, 4),
    warmup=st.booleans(),
)
@settings(max_examples=60)
def test_the_average_equals_a_plain_loop(weights, decay, every, warmup):
    model = nn.Linear(2, 1, dtype=torch.float64)
    nn.init.constant_(model.weight, 3.0)
    ema = Ema(model, EmaConfig(decay=decay, every=every, warmup=warmup))
    expected, updates = 3.0, 0
    for step, weight in enumerate(weights, 1):
        nn.init.constant_(model.weight, weight)
        ema.update(step)
        if step % every == 0:
            updates += 1
            kept = min(decay, updates / (updates + 9)) if warmup else decay
            expected = kept * expected + (1 - kept) * weight
    state = ema.state_dict()
    assert state.keys() == dict(model.named_parameters()).keys()
    torch.testing.assert_close(state["weight"], torch.full((1, 2), expected, dtype=torch.float64))
    assert torch.all(model.weight == weights[-1])
