"""Averaged weights against a loop over plain numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prolip.train.config.parts import EmaConfig
from prolip.train.ema import Ema


@given(
    weights=st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=25),
    decay=st.floats(0, 0.999),
    every=st.integers(1, 4),
    warmup=st.booleans(),
)
@settings(max_examples=60)
def test_the_average_equals_a_plain_loop(weights: list[float], decay: float, every: int, warmup: bool) -> None:
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


def test_a_loaded_state_continues_the_average() -> None:
    config = EmaConfig(decay=0.5, warmup=False)
    model, other = nn.Linear(2, 2), nn.Linear(2, 2)
    ours, theirs = Ema(model, config), Ema(other, config)
    for name, tensor in theirs.state_dict().items():  # as a restored checkpoint does
        tensor.copy_(ours.state_dict()[name])
    other.load_state_dict(model.state_dict())
    nn.init.ones_(model.weight)
    nn.init.ones_(other.weight)
    ours.update(1)
    theirs.update(1)
    for name, tensor in ours.state_dict().items():
        assert torch.equal(theirs.state_dict()[name], tensor)
        assert theirs.state_dict()[name].data_ptr() != tensor.data_ptr()


def test_ema_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"ema\.decay is 1\.0"):
        EmaConfig(decay=1.0)
    with pytest.raises(ValueError, match=r"ema\.every is 0"):
        EmaConfig(every=0)
