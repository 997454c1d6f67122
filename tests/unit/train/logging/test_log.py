"""Metrics rows: each step once, also after interruptions."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.support.limited import file_limit
from tests.support.refusals import refusal_of

from prolip.errors import DiskFullError
from prolip.train.config import LogConfig, TrainConfig
from prolip.train.logging import MetricsLog

ROW = {
    "step": 5,
    "samples": 640,
    "lr": 0.001,
    "loss": 3.25,
    "ppcl": 3.0,
    "inclusion": 0.1,
    "masked_image_inclusion": 0.05,
    "masked_text_inclusion": 0.05,
    "vib": 0.05,
    "samples_per_s": 320.0,
    "data_wait_share": 0.25,
}


def log_of(folder, step, **log):
    config = replace(TrainConfig(), out=folder, samples_seen=6400, batch_size=64, log=LogConfig(**log))
    return MetricsLog(config, step)


def steps(folder):
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_resumed_run_writes_each_step_once(tmp_path):
    with log_of(tmp_path, 0, tensorboard=True) as log:
        for step in (5, 10, 15):
            log.write(ROW | {"step": step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"st\0\0\0\0: 0.5}\n{"step": 20, "lo')  # what a crash of the machine and one of the run leave
    with log_of(tmp_path, 10, tensorboard=True) as log:
        log.write(ROW | {"step": 15})
    assert steps(tmp_path) == [5, 10, 15]
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_full_disk_is_named(tmp_path):
    with log_of(tmp_path, 0) as log, file_limit(300):
        log.write(ROW)
        with pytest.raises(DiskFullError, match=r"metrics\.jsonl"):
            log.write(ROW)


def scalars(folder):
    """What TensorBoard would draw."""
    board = EventAccumulator(str(folder / "tensorboard"))
    board.Reload()
    return {tag: [(event.step, event.value) for event in board.Scalars(tag)] for tag in board.Tags()["scalars"]}


def test_metrics_are_grouped_and_nan_stays_valid_json(tmp_path):
    with log_of(tmp_path, 0, tensorboard=True) as log:
        log.write(ROW)
        log.write(ROW | {"step": 6, "lr": math.nan, "bad/decode": 2})
        log.write_validation(6, 96, {"val/emoji/top1": 0.25})
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()
    found = scalars(tmp_path)
    assert {"optim/lr", "loss/ppcl", "speed/samples_per_s", "bad/decode"} < found.keys()
    assert found["val/emoji/top1"] == [(6, 0.25)]


def test_a_missing_logger_package_is_an_error_before_the_run(monkeypatch):
    monkeypatch.setattr("prolip.train.config.log.find_spec", lambda name: None)
    LogConfig().check()
    for name in ("wandb", "tensorboard"):
        with refusal_of(f"log.{name}"):
            LogConfig(**{name: True}).check()


def test_wandb_continues_the_same_run(tmp_path, monkeypatch):
    began = []

    def init(**settings):
        began.append(settings)
        return SimpleNamespace(define_metric=lambda *_, **__: None, log=rows.append, finish=lambda: None)

    rows = []
    monkeypatch.setattr("wandb.init", init)
    for step in (5, 10):
        with log_of(tmp_path, step - 5, wandb=True, wandb_project="images") as log:
            log.write(ROW | {"step": step})
    assert [(one["id"], one["project"], one["resume"]) for one in began] == [(began[0]["id"], "images", "allow")] * 2
    assert began[0]["config"]["batch_size"] == 64
    assert [(row["step"], row["loss/ppcl"]) for row in rows] == [(5, 3.0), (10, 3.0)]
