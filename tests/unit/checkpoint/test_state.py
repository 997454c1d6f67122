"""Saved state loads equal, and restores a run."""

import dataclasses

import pytest
import torch
from tests.support.checkpoints import NOTES, tensors
from tests.support.untrained_run import ALONE
from torch import nn

from prolip.checkpoint import (
    CheckpointError,
    Saver,
    checkpoint_path,
    load_checkpoint,
    rng_tensors,
    run_tensors,
)


def test_averaged_weights_are_used_for_inference(tmp_path):
    averaged = torch.full((64, 64), 0.5)
    with Saver(tmp_path, ALONE, keep=1) as saver:
        saver.save(NOTES, tensors(7) | {"ema.weight": averaged})
    loaded = load_checkpoint(checkpoint_path(tmp_path, 7))
    assert torch.equal(loaded.weights()["weight"], averaged)
    assert torch.equal(loaded.weights()["scale"], tensors(7)["model.scale"])  # no parameter, so it has no average
    assert torch.equal(loaded.model()["weight"], tensors(7)["model.weight"])


class Net(nn.Module):
    """A model with a parameter that no gradient reaches at first."""

    def __init__(self):
        super().__init__()
        self.used = nn.Linear(4, 3)
        self.idle = nn.Parameter(torch.ones(2))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)

    def forward(self, inputs):
        mixed = self.used(inputs) + torch.randn(3)
        return mixed.square().sum()


class Average:
    def __init__(self, model):
        self.weights = {name: parameter.detach() / 2 for name, parameter in model.named_parameters()}

    def state_dict(self):
        return dict(self.weights)


def make(seed):
    torch.manual_seed(seed)
    model = Net()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return model, torch.optim.AdamW(trained, lr=0.1, fused=True), Average(model)


def train(model, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.ones(4)).backward()
        optimizer.step()


def test_a_restored_run_takes_the_same_optimizer_steps(tmp_path):
    model, optimizer, average = make(seed=0)
    train(model, optimizer, 3)
    with Saver(tmp_path, ALONE, keep=1) as saver:
        saver.save(NOTES, run_tensors(model, optimizer, average) | rng_tensors(ALONE))
        train(model, optimizer, 2)  # while it is written

    again, its_optimizer, its_average = make(seed=1)
    saved = load_checkpoint(checkpoint_path(tmp_path, 7))
    assert saved.notes == NOTES
    saved.restore(again, its_optimizer, its_average)
    saved.restore_rng(ALONE)
    assert again.idle not in its_optimizer.state  # as in the run that was saved: its first step is still to come
    assert all(torch.equal(its_average.weights[name], tensor) for name, tensor in average.weights.items())
    train(again, its_optimizer, 2)
    after, expected = run_tensors(again, its_optimizer), run_tensors(model, optimizer)
    assert after.keys() == expected.keys() > {"optimizer.used.weight.exp_avg", "model.frozen"}
    assert all(torch.equal(after[name], tensor) for name, tensor in expected.items())


def test_generators_are_not_restored_for_another_number_of_ranks(tmp_path):
    with Saver(tmp_path, ALONE, keep=1) as saver:
        saver.save(dataclasses.replace(NOTES, world_size=2), tensors(7) | rng_tensors(ALONE))
    torch.manual_seed(9)
    before = torch.get_rng_state()
    load_checkpoint(checkpoint_path(tmp_path, 7)).restore_rng(ALONE)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_that_does_not_fit_is_refused(tmp_path):
    model, optimizer, average = make(seed=0)
    with Saver(tmp_path, ALONE, keep=1) as saver:
        saver.save(NOTES, run_tensors(model, optimizer))
    saved = load_checkpoint(checkpoint_path(tmp_path, 7))
    with pytest.raises(CheckpointError, match=r"has no tensor ema\.idle"):
        saved.restore(model, optimizer, average)
    model.used = nn.Linear(4, 2)
    with pytest.raises(CheckpointError, match=r"model\.used\.weight must be"):
        saved.restore(model, torch.optim.AdamW(model.parameters()))
