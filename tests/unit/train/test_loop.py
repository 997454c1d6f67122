"""A training step: it compiles into one graph, and nothing in it waits for a number to come back from the device."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from tests.support.small_step import LOSS, Step, model_of, run_of, step_of
from torch import Tensor
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile
from torch.utils import backend_registration

from prolip.distributed import Peers
from prolip.losses import LossTerms, ProlipLoss
from prolip.train.loop import take_step

ROOT = Path(__file__).resolve().parents[3]
WAITING = {
    "aten::item",
    "aten::_local_scalar_dense",
    "aten::is_nonzero",
    "aten::nonzero",
    "aten::equal",
    "aten::unique",
}
"""Operators whose result, or the size of it, has to be known on the host: on a GPU, the host waits for them."""


def within(event: FunctionEvent, name: str) -> bool:
    parent = event.cpu_parent
    return parent is not None and (parent.name == name or within(parent, name))


def waiting_calls(recorded: profile) -> list[str]:
    """The CPU's fused AdamW reads its own counts of steps, which are on the host; a GPU's reads them on the device."""
    calls = [event for event in recorded.events() if event.name in WAITING]
    return [event.name for event in calls if not within(event, "aten::_fused_adamw_")]


@pytest.mark.parametrize(
    "changes",
    [{"precision": "fp32"}, {"precision": "bf16"}, {"precision": "bf16", "accumulate": 3}, {"precision": "fp16"}],
    ids=["plain", "low", "parts", "scaled"],
)
def test_a_step_waits_for_nothing(changes: dict[str, Any]) -> None:
    run, batch = run_of(model_of(), **changes), cast(Any, step_of(8, 3))
    take_step(run, batch)  # whatever is made once
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        take_step(run, batch)
    assert any(event.name == "prolip::ppcl_pair_sum" for event in recorded.events())
    assert waiting_calls(recorded) == []


def test_what_waits_would_be_seen() -> None:
    value = torch.tensor([1.0, 0.0])
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        value.sum().item()
        value.nonzero()
        bool(value.sum() > 0)
    assert {"aten::item", "aten::nonzero", "aten::is_nonzero"} <= set(waiting_calls(recorded))


STEPS: list[dict[str, Any]] = [
    {"precision": "fp32"},
    {"precision": "bf16"},
    {"precision": "bf16", "accumulate": 3},
    {"precision": "fp16"},
]


def test_no_step_waits_for_a_device_that_counts() -> None:
    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip(f"torch {torch.__version__} knows no devices written in Python")
    command = [sys.executable, "-m", "tests.support.stand_in_device", *map(json.dumps, STEPS)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    for step, changes in zip(found["steps"], STEPS, strict=True):
        assert step["calls"] > 500, changes
        assert step["adamw"] > 0, changes
        assert step["waits"] == {}, changes
    # Everything that does wait is seen.
    assert len(found["seen"]) == 7
    assert all(found["seen"].values()), found["seen"]


def test_model_and_loss_are_one_graph() -> None:
    model, batch, loss = model_of(), step_of(6, 2), ProlipLoss(LOSS, Peers())

    def step(inputs: Step) -> LossTerms:
        return loss(model(*inputs))

    def gradients_of(terms: LossTerms) -> list[Tensor]:
        return list(torch.autograd.grad(terms.total, list(model.parameters())))

    terms = step(batch)
    expected = gradients_of(terms)
    found = torch.compile(step, fullgraph=True, backend="aot_eager")(batch)
    torch.testing.assert_close(found, terms)
    for ours, theirs in zip(gradients_of(found), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    torch._dynamo.reset()
