"""Set-up, what a run saves and restores, and steps that never wait for a number from the device."""

import json
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from tests.support import forked
from tests.support.small_step import ALONE
from tests.support.small_training import RECIPE, Lab, write_shard, write_tokenizer
from torch import Tensor
from torch.utils import backend_registration

from prolip.checkpoint import rng_tensors, run_tensors
from prolip.train import loop as train_loop
from prolip.train.config import load_config
from prolip.train.loop import set_up, take_step

ROOT = Path(__file__).resolve().parents[3]


def state_of(run):
    """Copies of all that the next steps depend on."""
    tensors = run_tensors(run.model, run.optimizer, run.ema) | rng_tensors(run.ranks)
    numbers = {"scaler": run.scaler.state_dict(), "samples": run.samples, "step": run.step, "best": run.best._value}
    return {name: tensor.clone() for name, tensor in tensors.items()} | numbers


def train_on(folder, monkeypatch, *flags):
    """The state before each step with the step's samples, and the state at the end."""
    found = []

    def recorded(run, batch):
        found.append((state_of(run), batch.keys))
        torch.rand(1)  # as a model with dropout would
        return take_step(run, batch)

    monkeypatch.setattr(train_loop, "take_step", recorded)
    with ExitStack() as opened:
        run = set_up(load_config(Lab(folder).words("run", *STATEFUL, *flags)), ALONE, opened)
        for each in (run.loader, run.saver, run.validation):
            opened.enter_context(each)
        assert (run.elapsed_s > 0) == (run.step > 0)
        if run.step == 0:
            run.scaler.scale.fill_(2.0**10)
        train_loop.loop(run, opened)
        found.append((state_of(run), []))
    return found


STATEFUL = (
    *("--precision", "fp16", "--ema.decay", "0.9", "--keep_best", "loss", "--log_every", "1", "--samples_seen", "96"),
    *("--checkpoint_every", "1", "--keep_checkpoints", "9", "--optim.warmup_steps", "1"),
)


def test_a_resumed_run_has_every_state_of_the_run_that_went_on(tmp_path, monkeypatch):
    """Weights, moments, average, loss scale, random numbers, best metric, samples seen and the place in the data."""
    write_shard(tmp_path / "train.tar")
    write_tokenizer(tmp_path / "tokenizer.json")
    (tmp_path / "recipe.toml").write_text(RECIPE.format(folder=tmp_path))
    whole = train_on(tmp_path, monkeypatch)
    assert len(whole) == 7
    for step in (3, 5):  # within the first epoch of four steps, and within the second
        torch.manual_seed(99)
        again = train_on(tmp_path, monkeypatch, "--resume", str(step))
        for (found, keys), (expected, expected_keys) in zip(again, whole[step:], strict=True):
            assert keys == expected_keys
            assert found.keys() == expected.keys()
            for name, value in expected.items():
                same = torch.equal(found[name], value) if isinstance(value, Tensor) else found[name] == value
                assert same, (step, name)


STEPS = [
    {"precision": "fp32"},
    {"precision": "bf16"},
    {"precision": "bf16", "accumulate": 3},
    {"precision": "fp16"},
]


def test_no_step_waits_for_a_stand_in_device():
    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip(f"torch {torch.__version__} knows no devices written in Python")
    command = [sys.executable, "-m", "tests.support.stand_in_device", *map(json.dumps, STEPS)]
    told = forked.run(command, cwd=ROOT)
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    for step, changes in zip(found["steps"], STEPS, strict=True):
        assert step["calls"] > 500, changes
        assert step["adamw"] > 0, changes
        assert step["waits"] == {}, changes
    # Everything that does wait is seen.
    assert len(found["seen"]) == 7
    assert all(found["seen"].values()), found["seen"]
