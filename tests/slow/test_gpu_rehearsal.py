"""The whole GPU run in its small form, on a CPU."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.gpu.__main__ import main
from tests.gpu.parts import PARTS
from tests.support.forked import Forked

ROOT = Path(__file__).resolve().parents[2]


Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch):
    """Runs the command here, with parts that need not import PyTorch; one test below starts real processes."""
    monkeypatch.setattr("tests.gpu.schedule.Popen", Forked)
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def run_here(*arguments):
        monkeypatch.setattr(sys, "argv", ["tests.gpu", *arguments])
        return main()

    return run_here


@pytest.mark.timeout(600)
def test_every_part_runs_small_on_a_cpu(run, tmp_path, capsys):
    status = run("--device", "cpu", "--small", "--out", str(tmp_path), "--seconds", "580")
    log = (tmp_path / "gpu.log").read_text(encoding="utf-8")
    told = capsys.readouterr().out
    assert status == 0, told + log
    report = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert report["good"]
    assert [part["name"] for part in report["parts"]] == [part.name for part in PARTS]
    for part in report["parts"]:
        assert part["status"] == "passed", part
        assert any("not_run" not in row for row in part["rows"]), part
        assert part["section"] != "Correct" or any("passed" in row for row in part["rows"]), part
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpu.json", "gpu.log", "gpu.md"]
    assert told.endswith((tmp_path / "gpu.md").read_text(encoding="utf-8") + "\n")


def test_a_part_runs_from_the_command_line(tmp_path):
    command = [sys.executable, "-m", "tests.gpu", "--device", "cpu", "--small", "--only", "machine"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("machine: passed\n")
