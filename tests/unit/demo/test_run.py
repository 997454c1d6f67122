"""The demo without training: flags for this machine, finished stages, printed lines."""

import tempfile
from types import SimpleNamespace

import pytest
import torch

from prolip.calibration.config import CALIBRATION_FILE
from prolip.checkpoint import checkpoint_path
from prolip.demo import run as demo
from prolip.errors import UserError
from prolip.train.config import load_config


@pytest.mark.parametrize(
    ("gpus", "cores", "expected"), [(0, 1, 1), (0, 2, 2), (0, 3, 2), (0, 64, 4), (1, 8, 1), (7, 8, 4)]
)
def test_the_number_of_processes_fits_cores_and_gpus(gpus, cores, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(demo, "usable_cores", lambda: cores)
    assert demo.count_processes() == expected


def test_headlines_are_printed_as_a_table():
    figure = {"id": {"data": "Group"}, "main": True, "value": {"m": 0.5711}}
    figure["baselines"] = {"untrained": 0.08, "largest": 0.2}
    lines = demo.headline_lines({"models": {"m": ""}, "figures": [figure, figure | {"main": False}]})
    assert len(lines) == 2
    assert lines[1].split() == ["Group", "57.1%", "8.0%", "20.0%", "(largest)"]


def test_a_folder_that_cannot_be_written_is_named_before_the_data_are_built(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "build_emoji", lambda *_: pytest.fail("built"))
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="file"):
        demo.run_demo(demo.DemoConfig(out=tmp_path / "file" / "run", data=tmp_path / "data"))


def test_a_finished_demo_without_a_calibration_is_measured_again(tmp_path, monkeypatch):
    config = demo.DemoConfig(out=tmp_path / "run", data=tmp_path / "data")
    words = f"demo --out {config.out} --data.shards x --data.tokenizer.path x".split()
    checkpoint_path(config.out / "checkpoints", load_config(words).total_steps).mkdir(parents=True)
    done = []

    def evaluate(source, data, results):
        done.append("evaluate")
        results.parent.mkdir(parents=True, exist_ok=True)
        results.write_text("{}")

    monkeypatch.setattr(demo, "build_emoji", lambda *_: SimpleNamespace(samples={"train": 1}))
    monkeypatch.setattr(demo, "evaluate", evaluate)
    monkeypatch.setattr(demo, "run_suites", lambda run, data: (run / CALIBRATION_FILE).touch())
    monkeypatch.setattr(demo, "headline_lines", lambda results: [])
    monkeypatch.setattr(demo, "write_report", lambda run: (run / "report.html").touch())
    for _ in range(2):
        assert demo.run_demo(config)[0] == 0
        assert done == ["evaluate"]
    (config.out / CALIBRATION_FILE).unlink()
    assert demo.run_demo(config)[0] == 0
    assert done == ["evaluate", "evaluate"]


def test_training_leaves_no_temporary_folder(tmp_path, monkeypatch):
    made = []

    def launch(config, entrypoint):
        config.logs_specs.reify({0: {"TORCHELASTIC_RUN_ID": config.run_id}})
        made.extend(path.name for path in tmp_path.rglob("*"))
        return lambda *_: None

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(demo, "elastic_launch", launch)
    assert demo.train(["demo"], 1) == 0
    assert made
    assert not list(tmp_path.iterdir())


def test_an_unknown_recipe_is_an_error_before_anything_is_built(tmp_path):
    with pytest.raises(UserError):
        demo.run_demo(demo.DemoConfig(out=tmp_path / "run", data=tmp_path / "data", recipe="absent"))
    assert not list(tmp_path.iterdir())
