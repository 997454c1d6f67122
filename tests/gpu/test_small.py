"""The whole GPU run in its small form, on a CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.gpu.parts import PARTS

ROOT = Path(__file__).resolve().parents[2]
ONLY_THERE = {"needs CUDA", "the machine has fewer cores"}
"""Why a row may be missing here."""


@pytest.mark.timeout(600)
def test_every_part_runs_small_on_a_cpu(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.gpu", "--device", "cpu", "--small", "--out", str(tmp_path)]
    done = subprocess.run(
        [*command, "--seconds", "580"], cwd=ROOT, capture_output=True, text=True, timeout=590, check=False
    )
    log = (tmp_path / "gpu.log").read_text(encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr + log
    report = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert report["good"]
    assert [part["name"] for part in report["parts"]] == [part.name for part in PARTS]
    for part in report["parts"]:
        assert part["status"] == "passed", part
        assert any("not_run" not in row for row in part["rows"]), part
        assert {row["not_run"] for row in part["rows"] if "not_run" in row} <= ONLY_THERE
        assert part["section"] != "Correct" or any("passed" in row for row in part["rows"]), part
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpu.json", "gpu.log", "gpu.md"]
    assert done.stdout.endswith((tmp_path / "gpu.md").read_text(encoding="utf-8") + "\n")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_machine_without_a_gpu_is_told_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.gpu", "--only", "machine", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 1
    assert f"machine: failed: torch {torch.__version__} sees no GPU" in done.stdout
