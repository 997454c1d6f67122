"""The demo without training: flags for this machine, finished stages, printed lines."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.distributed.launcher.api import LaunchConfig

from prolip.checkpoint import checkpoint_path
from prolip.decisions.config import CALIBRATION_FILE
from prolip.demo import run as demo
from prolip.demo.suite import EmojiResults
from prolip.demo.suite.results import Headline
from prolip.errors import UserError
from prolip.train.config import load_config


@pytest.mark.parametrize(
    ("gpus", "cores", "expected"), [(0, 1, 1), (0, 2, 2), (0, 3, 2), (0, 64, 4), (1, 8, 1), (7, 8, 4)]
)
def test_the_number_of_processes_fits_cores_and_gpus(
    gpus: int, cores: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(demo, "usable_cores", lambda: cores)
    assert demo.count_processes() == expected


def test_a_negative_number_of_processes_is_refused() -> None:
    with pytest.raises(UserError, match="processes is -1: it must not be negative"):
        demo.DemoConfig(processes=-1)


def test_a_file_is_newer_if_it_was_written_later(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert not demo.is_newer(second, first)
    for number, path in enumerate((first, second)):
        path.write_text("x")
        os.utime(path, (1000 + number, 1000 + number))
    assert demo.is_newer(second, first)
    assert not demo.is_newer(first, second)


def test_headlines_are_printed_as_a_table() -> None:
    figures = [Headline(name="a", label="Group", trained=0.5711, random=0.08, chance=0.2, chance_label="largest group")]
    results = EmojiResults.__new__(EmojiResults)
    object.__setattr__(results, "headlines", figures)
    lines = demo.headline_lines(results)
    assert len(lines) == 2
    assert lines[1].split() == ["Group", "57.1%", "8.0%", "20.0%", "(largest", "group)"]


def test_a_folder_that_cannot_be_written_is_named_before_the_data_are_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "build_emoji", lambda *_: pytest.fail("built"))
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="file"):
        demo.run_demo(demo.DemoConfig(out=tmp_path / "file" / "run", data=tmp_path / "data"))


def test_a_finished_demo_without_a_calibration_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, emoji_results: EmojiResults
) -> None:
    config = demo.DemoConfig(out=tmp_path / "run", data=tmp_path / "data")
    words = ["demo", "--out", str(config.out), "--data.shards", "x", "--data.tokenizer.path", "x"]
    checkpoint_path(config.out / "checkpoints", load_config(words).total_steps).mkdir(parents=True)
    done: list[str] = []

    def evaluate(source: Path, data: Path, out: Path) -> None:
        done.append("evaluate")
        out.write_text(emoji_results.to_json())
        (source / CALIBRATION_FILE).touch()

    monkeypatch.setattr(demo, "build_emoji", lambda *_: SimpleNamespace(samples={"train": 1}))
    monkeypatch.setattr(demo, "evaluate", evaluate)
    monkeypatch.setattr(demo, "render_report", lambda run, data: (run / "report.html").touch())
    for expected in (["evaluate"], ["evaluate"]):
        assert demo.run_demo(config)[0] == 0
        assert done == expected
    (config.out / CALIBRATION_FILE).unlink()
    assert demo.run_demo(config)[0] == 0
    assert done == ["evaluate", "evaluate"]


def test_training_leaves_no_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def launch(config: LaunchConfig, entrypoint: str) -> Callable[..., None]:
        assert config.logs_specs is not None
        config.logs_specs.reify({0: {"TORCHELASTIC_RUN_ID": config.run_id}})
        made.extend(path.name for path in tmp_path.rglob("*"))
        return lambda *_: None

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(demo, "elastic_launch", launch)
    assert demo.train(["demo"], 1) == 0
    assert made
    assert not list(tmp_path.iterdir())


def test_an_unknown_recipe_is_an_error_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no recipe 'absent'"):
        demo.run_demo(demo.DemoConfig(out=tmp_path / "run", data=tmp_path / "data", recipe="absent"))
    assert not list(tmp_path.iterdir())
