"""Rows of metrics: each step once, whatever was interrupted; a line of progress for people and for logs."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from prolip.metrics import MetricsLog, Progress, format_seconds

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


def steps(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_resumed_run_writes_each_step_once(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, 0) as log:
        for step in (5, 10, 15):
            log.write(ROW | {"step": step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "lo')  # what a crash leaves
    with MetricsLog(tmp_path, 10) as log:
        log.write(ROW | {"step": 15})
    assert steps(tmp_path) == [5, 10, 15]
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_run_from_the_start_drops_the_rows_of_an_earlier_one(tmp_path: Path) -> None:
    for _ in range(2):
        with MetricsLog(tmp_path, 0) as log:
            log.write(ROW)
    assert steps(tmp_path) == [5]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "begins", "ends"), [(io.StringIO(), "step 5/100", "\n"), (Terminal(), "\r", "\n")])
def test_progress_says_speed_waiting_terms_and_eta(stream: io.StringIO, begins: str, ends: str) -> None:
    with Progress(100, stream) as progress:
        progress.show(ROW)
    shown = stream.getvalue()
    assert shown.startswith(begins)
    assert shown.endswith(ends)
    for part in ("step 5/100", "loss 3.25", "ppcl 3 ", "320 samples/s", "waiting for data 25%", "ETA 0:38"):
        assert part in shown


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (45, "0:45"), (723, "12:03"), (12000, "3:20:00"), (184800, "2d 3:20:00")]
)
def test_durations(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
