"""Metrics rows: each step once, also after interruptions; the progress line in a terminal and in a log."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import struct
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.support.limited import file_limit
from tests.support.small_training import write_tokenizer
from wandb.proto.wandb_internal_pb2 import Record

from prolip.data.config import TokenizerConfig
from prolip.errors import DiskFullError
from prolip.gaussian import Gaussian
from prolip.models import ProLIPOutput
from prolip.train.config import LogConfig
from prolip.train.logging import MetricsLog, Progress, format_seconds

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


BOARD = LogConfig(tensorboard=True)


def log_of(folder: Path, step: int, config: LogConfig = BOARD) -> MetricsLog:
    return MetricsLog(folder, step, config, name="mine", settings="[optim]\nlr = 1e-3\n")


def steps(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_resumed_run_writes_each_step_once(tmp_path: Path) -> None:
    with log_of(tmp_path, 0) as log:
        for step in (5, 10, 15):
            log.write(ROW | {"step": step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"st\0\0\0\0: 0.5}\n{"step": 20, "lo')  # what a crash of the machine and one of the run leave
    with log_of(tmp_path, 10) as log:
        log.write(ROW | {"step": 15})
    assert steps(tmp_path) == [5, 10, 15]
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_run_from_the_start_drops_the_rows_of_an_earlier_one(tmp_path: Path) -> None:
    for _ in range(2):
        with log_of(tmp_path, 0) as log:
            log.write(ROW)
    assert steps(tmp_path) == [5]


def test_only_the_rows_are_written_by_default(tmp_path: Path) -> None:
    with log_of(tmp_path, 0, LogConfig()) as log:
        log.write(ROW)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_deleted_log_goes_on_in_a_new_file(tmp_path: Path) -> None:
    with log_of(tmp_path, 0, LogConfig()) as log:
        log.write(ROW)
        (tmp_path / "metrics.jsonl").unlink()
        log.write(ROW | {"step": 10})
    assert steps(tmp_path) == [10]


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    with log_of(tmp_path, 0, LogConfig()) as log, file_limit(300):
        log.write(ROW)
        with pytest.raises(DiskFullError, match=r"/metrics\.jsonl: file too large: \d+ bytes are needed, "):
            log.write(ROW)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard would draw."""
    board = EventAccumulator(str(folder / "tensorboard"))
    board.Reload()
    return {tag: [(event.step, event.value) for event in board.Scalars(tag)] for tag in board.Tags()["scalars"]}


def test_metrics_are_grouped_and_nan_stays_valid_json(tmp_path: Path) -> None:
    with log_of(tmp_path, 0) as log:
        log.write({"step": 5, "lr": 0.5, "ppcl": 3.0, "val/emoji/top1": 0.25, "bad/decode": 2})
        log.write({"step": 6, "lr": math.nan})
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()
    found = scalars(tmp_path)
    assert found.keys() == {"optim/lr", "loss/ppcl", "val/emoji/top1", "bad/decode"}
    assert found["val/emoji/top1"] == [(5, 0.25)]


def wandb_records(path: Path) -> list[Any]:
    """What an offline run keeps: behind 7 bytes, LevelDB's log format of records in blocks of 32 KiB."""
    data, place, parts, records = path.read_bytes(), 7, b"", []
    while place + 7 <= len(data):
        left = 2**15 - place % 2**15
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in {1, 4}:  # whole, or the last part
            record = Record()
            record.ParseFromString(parts)
            records.append(record)
            parts = b""
    return records


def finished_records(path: Path) -> list[Any]:
    """All records of a run that has ended: W&B's own process may write the last ones a little later."""
    deadline = time.monotonic() + 60
    while not (records := wandb_records(path)) or not records[-1].HasField("exit"):
        assert time.monotonic() < deadline, f"{path} has no end"
        time.sleep(0.05)
    return records


def test_an_offline_wandb_log_continues_as_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    config = LogConfig(wandb=True, wandb_project="images", examples_every=10, num_examples=1)
    write_tokenizer(tmp_path / "tokenizer.json")
    tokenizer = TokenizerConfig(kind="file", path=tmp_path / "tokenizer.json", context_length=4)
    tower = Gaussian(torch.zeros(2, 4), torch.zeros(2, 4))
    output = ProLIPOutput(tower, Gaussian(*(part[None] for part in tower)), None, None, torch.tensor(1.0), None)
    batch: Any = SimpleNamespace(images=torch.zeros(2, 3, 4, 4), token_ids=torch.ones(1, 2, 4).long(), keys=["a", "b"])
    for step in (5, 10):
        with log_of(tmp_path, step - 5, config) as log:
            log.write(ROW | {"step": step})
            log.show_examples(step, batch, output, tokenizer)
    assert sorted(path.name for path in (tmp_path / "examples").iterdir()) == ["step_10.jsonl", "step_10.png"]
    remembered = (tmp_path / "wandb_run_id").read_text()
    files = sorted((tmp_path / "wandb").glob(f"offline-run-*/run-{remembered}.wandb"))
    assert len(files) == 2
    for step, path in zip((5, 10), files, strict=True):
        records = finished_records(path)
        (run,) = [record.run for record in records if record.HasField("run")]
        assert (run.run_id, run.project, run.display_name) == (remembered, "images", "mine")
        assert {item.key: json.loads(item.value_json) for item in run.config.update}["optim"] == {"lr": 1e-3}
        row = next(record.history for record in records if record.HasField("history"))
        logged_images = list((path.parent / "files" / "media" / "images").glob("*.png"))
        assert bool(logged_images) == (step == 10)
        told = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in row.item}
        assert (told["step"], told["loss/ppcl"], told["optim/lr"]) == (step, 3.0, 0.001)


def test_a_missing_logger_package_is_an_error_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prolip.train.config.parts.find_spec", lambda name: None)
    LogConfig().check()
    with pytest.raises(ValueError, match=r"log.wandb is True, but W&B is not installed: pip install 'prolip\[wandb\]'"):
        LogConfig(wandb=True).check()
    with pytest.raises(ValueError, match=r"log.tensorboard is True, .* pip install 'prolip\[tensorboard\]'"):
        LogConfig(tensorboard=True).check()


@pytest.mark.parametrize("peak", [0.0, -1.0, math.inf])
def test_a_peak_must_be_a_number(peak: float) -> None:
    with pytest.raises(ValueError, match=r"log.peak_tflops is .*: it must be finite and positive"):
        LogConfig(peak_tflops=peak)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "begins", "ends"), [(io.StringIO(), "step 5/100", "\n"), (Terminal(), "\r", "\n")])
def test_progress_shows_speed_waiting_terms_and_eta(stream: io.StringIO, begins: str, ends: str) -> None:
    with Progress(100, stream) as progress:
        progress.show(ROW)
    shown = stream.getvalue()
    assert shown.startswith(begins)
    assert shown.endswith(ends)
    for part in ("step 5/100", "loss 3.25", "ppcl 3 ", "320 samples/s", "waiting for data 25%", "ETA 0:38"):
        assert part in shown


def test_an_evaluation_is_printed_on_its_own_line() -> None:
    stream = Terminal()
    with Progress(100, stream) as progress:
        progress.show(ROW)
        progress.show_validation(5, {"val/a/top1": 0.25, "val/a/top5": 0.5, "val/b/recall": 1 / 3})
        progress.show(ROW)
    lines = stream.getvalue().split("\n")
    assert lines[1] == "evaluated at step 5: val/a/top1 0.25, val/b/recall 0.3333"
    assert lines[0].startswith("\rstep 5/100")
    assert lines[2].startswith("\rstep 5/100")


class FullDisk(io.StringIO):
    def flush(self) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_progress_on_a_full_disk_does_not_end_the_run() -> None:
    with Progress(100, FullDisk()) as progress:
        progress.show(ROW)
        progress.show_validation(5, {"val/a/top1": 0.25})


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (45, "0:45"), (723, "12:03"), (12000, "3:20:00"), (184800, "2d 3:20:00")]
)
def test_durations_are_written_in_the_units_that_fit(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
