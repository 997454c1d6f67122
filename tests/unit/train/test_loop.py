"""A training step compiles into one graph, and never waits for a number from the device."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from tests.support import forked
from tests.support.small_step import LOSS, Step, model_of, run_of, step_of
from torch import Tensor
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile
from torch.utils import backend_registration

from prolip.data import LoaderConfig
from prolip.distributed import Peers, Ranks
from prolip.losses import LossTerms, ProlipLoss
from prolip.train.config import TrainConfig
from prolip.train.divergence import Divergence
from prolip.train.loop import main, set_up, take_step

ROOT = Path(__file__).resolve().parents[3]
WAITING = {
    "aten::item",
    "aten::_local_scalar_dense",
    "aten::is_nonzero",
    "aten::nonzero",
    "aten::equal",
    "aten::_unique2",
    "aten::masked_select",
    "aten::bincount",
}
"""Operators whose result, or the size of it, has to be known on the host: on a GPU, the host waits for them."""
READS = ("item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__", "__array__")
"""Methods of a tensor that read it on the host. On a CPU, some of them call no operator."""


def within(event: FunctionEvent, name: str) -> bool:
    parent = event.cpu_parent
    return parent is not None and (parent.name == name or within(parent, name))


def waiting_calls(recorded: profile) -> list[str]:
    """The CPU's fused AdamW reads its own counts of steps, which are on the host; a GPU's reads them on the device."""
    calls = [event for event in recorded.events() if event.name in WAITING]
    return [event.name for event in calls if not within(event, "aten::_fused_adamw_")]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the methods that read a tensor on the host, call by call."""
    found: list[str] = []

    def noted(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **settings: Any) -> Any:
            found.append(name)
            return method(*arguments, **settings)

        return call

    for name in READS:
        monkeypatch.setattr(Tensor, name, noted(name, getattr(Tensor, name)))
    return found


@pytest.mark.parametrize(
    "changes",
    [{"precision": "fp32"}, {"precision": "bf16"}, {"precision": "bf16", "accumulate": 3}, {"precision": "fp16"}],
    ids=["plain", "low", "parts", "scaled"],
)
def test_a_step_does_not_synchronise_with_the_device(
    changes: dict[str, Any], reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Divergence, "check", lambda _: None)  # which a step calls on a CPU only
    run, batch = run_of(model_of(), **changes), cast(Any, step_of(8, 3))
    take_step(run, batch)  # whatever is made once
    reads.clear()
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        take_step(run, batch)
        assert reads == []
    assert any(event.name == "prolip::ppcl_pair_sum" for event in recorded.events())
    assert waiting_calls(recorded) == []


WAITS: list[Callable[[Tensor], object]] = [
    lambda value: value.sum().item(),
    lambda value: value.tolist(),
    lambda value: value.cpu(),
    lambda value: value.numpy(),
    np.asarray,
    lambda value: float(value.sum()),
    lambda value: bool(value.sum() > 0),
    lambda value: value.nonzero(),
    lambda value: value[value > 0],
    lambda value: value.masked_select(value > 0),
    lambda value: value.unique(),
    lambda value: value.long().bincount(),
    lambda value: torch.equal(value, value),
]


@pytest.mark.parametrize("wait", WAITS)
def test_the_check_for_synchronisation_detects_each_kind(wait: Callable[[Tensor], object], reads: list[str]) -> None:
    value = torch.tensor([1.0, 0.0])
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        wait(value)
    assert [*reads, *waiting_calls(recorded)] != []


@pytest.mark.parametrize(("cpu_threads", "expected"), [(0, 4), (3, 3)])
def test_each_process_gets_its_share_of_cores_also_on_gpus(
    cpu_threads: int, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SetUp(Exception): ...

    def stop(*_: object) -> None:
        raise SetUp

    given: list[int] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.set_num_threads", given.append)
    monkeypatch.setattr(TrainConfig, "check_vocabulary", lambda _: None)
    monkeypatch.setattr("prolip.train.loop.find_saved", stop)
    config = run_of(model_of(), cpu_threads=cpu_threads).config
    gpu = Ranks(rank=0, local_rank=0, world_size=1, device=torch.device("cuda", 0), cores=4)
    with ExitStack() as opened, pytest.raises(SetUp):
        set_up(config, gpu, opened)
    assert given == [expected]


@pytest.mark.parametrize(("num_threads", "expected"), [(0, 4), (3, 3)])
def test_the_loader_has_a_thread_for_each_core_of_its_process(
    num_threads: int, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SetUp(Exception): ...

    given: list[int] = []

    def stop(config: LoaderConfig, **_: object) -> None:
        given.append(config.num_threads)
        raise SetUp

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(TrainConfig, "check_vocabulary", lambda _: None)
    monkeypatch.setattr("prolip.train.loop.BatchLoader", stop)
    config = run_of(model_of()).config
    config = replace(config, data=replace(config.data, num_threads=num_threads))
    ranks = Ranks(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"), cores=4)
    with ExitStack() as opened, pytest.raises(SetUp):
        set_up(config, ranks, opened)
    assert given == [expected]


def test_the_loss_measures_variances_in_units_of_the_models_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SetUp(Exception): ...

    given: list[tuple[float, float]] = []

    def stop(*_: object, variance_units: tuple[float, float]) -> None:
        given.append(variance_units)
        raise SetUp

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(TrainConfig, "check_vocabulary", lambda _: None)
    monkeypatch.setattr("prolip.train.loop.BatchLoader", lambda *_, **__: None)
    monkeypatch.setattr("prolip.train.loop.ProlipLoss", stop)
    config = run_of(model_of()).config
    alone = Ranks(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"))
    with ExitStack() as opened, pytest.raises(SetUp):
        set_up(config, alone, opened)
    assert given == [config.model.start_variances]


def test_ranks_start_with_the_configured_device_and_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(ranks: Ranks, device: str, timeout: timedelta) -> Ranks:
        raise RuntimeError(f"{device}, {timeout}")

    monkeypatch.setattr("prolip.train.loop.join", refuse)
    words = ["demo", "--data.shards", "a.tar", "--device", "cuda", "--timeout_minutes", "90"]
    with pytest.raises(RuntimeError, match=r"^cuda, 1:30:00$"):
        main(words)


STEPS: list[dict[str, Any]] = [
    {"precision": "fp32"},
    {"precision": "bf16"},
    {"precision": "bf16", "accumulate": 3},
    {"precision": "fp16"},
]


def test_no_step_waits_for_a_stand_in_device() -> None:
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
