"""fp16's loss scale follows torch's rule, and a skipped step changes nothing."""

from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings, strategies as st
from tests.support.small_step import model_of, run_of, step_of
from torch import nn

from prolip.train.loop import take_step
from prolip.train.optim import LossScaler, clip_gradients

CPU = torch.device("cpu")


@given(overflows=st.lists(st.booleans(), max_size=20), patience=st.integers(1, 4))
@settings(max_examples=60)
def test_the_loss_scale_follows_torchs_grad_scaler(overflows, patience):
    ours = LossScaler(CPU, 2.0**24, patience=patience)
    theirs = torch.amp.GradScaler("cpu", init_scale=2.0**24, growth_interval=patience)
    mine, other = (nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizers = [torch.optim.SGD([parameter], lr=0.1) for parameter in (mine, other)]
    for overflow in overflows:
        factor = torch.tensor(torch.inf if overflow else 2.0)
        for optimizer in optimizers:
            optimizer.zero_grad()
        theirs.scale((other * factor).sum()).backward()
        theirs.step(optimizers[1])
        theirs.update()
        torch.autograd.backward((mine * factor).sum(), ours.scale)
        ours.unscale([mine])
        finite = clip_gradients([mine], None).isfinite()
        ours.update(finite)
        if finite:
            optimizers[0].step()
        assert ours.scale == theirs.get_scale()
        assert torch.equal(mine, other)
    for _ in range(60):  # gradients that no scale makes finite
        helped = ours.update(torch.tensor(False))
    assert not helped
    assert 0.5 < ours.scale <= 1
    again = LossScaler(CPU, patience=patience)
    again.load_state_dict(ours.state_dict())
    assert again.state_dict() == ours.state_dict()


def test_gradients_that_stay_nan_end_the_run_once_the_scale_is_1():
    run, batch = run_of(model_of(), precision="fp16"), cast(Any, step_of(8, 3))
    run.scaler.scale.fill_(4.0)
    run.model.text.ln_final.bias.register_hook(lambda gradient: gradient * torch.nan)
    for _ in range(2):
        take_step(run, batch)
    with pytest.raises(RuntimeError, match=r"^step 3 diverged, not finite: gradient norm "):
        take_step(run, batch)


def test_a_step_that_overflows_changes_only_the_step_count():
    run, batch = run_of(model_of(), precision="fp16"), cast(Any, step_of(8, 3))
    run.scaler.scale.fill_(2.0**120)
    before = [parameter.clone() for parameter in run.model.parameters()]
    terms, _, norm = take_step(run, batch)
    assert torch.isfinite(terms.total)
    assert norm == 0
    assert run.scaler.scale == 2.0**119
    assert not any(tensor.any() for state in run.optimizer.state.values() for tensor in state.values())
    assert all(map(torch.equal, before, run.model.parameters()))
    assert run.step == 1
