"""A training step compiles into one graph, and never waits for a number from the device."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support import forked
from tests.support.small_step import model_of, run_of
from torch.utils import backend_registration

from prolip.distributed import Ranks
from prolip.train.config import TrainConfig
from prolip.train.loop import main, set_up

ROOT = Path(__file__).resolve().parents[3]


def test_a_process_uses_its_share_of_cores_and_the_models_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SetUp(Exception): ...

    found: dict[str, Any] = {}

    def stop(*_: object, **settings: object) -> None:
        found.update(settings)
        raise SetUp

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.set_num_threads", lambda threads: found.update(torch=threads))
    monkeypatch.setattr(TrainConfig, "check_vocabulary", lambda _: None)
    monkeypatch.setattr("prolip.train.loop.BatchLoader", lambda config, **_: found.update(loader=config.num_threads))
    monkeypatch.setattr("prolip.train.loop.ProlipLoss", stop)
    ranks = Ranks(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"), cores=4)
    for cpu_threads in (0, 3):
        config = run_of(model_of(), cpu_threads=cpu_threads).config
        with ExitStack() as opened, pytest.raises(SetUp):
            set_up(config, ranks, opened)
        assert found == {"torch": cpu_threads or 4, "loader": 4, "variance_units": config.model.start_variances}


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
