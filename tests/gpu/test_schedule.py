"""Parts run in their own processes: one that fails or hangs stops no other, and the report is always complete."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest
from tests.gpu.parts import PARTS, Part
from tests.gpu.report import PASSED, Report, named_parts
from tests.gpu.schedule import Worker, run_parts

ROW = '{"what": "one", "value": 1, "unit": "", "why": ""}'
SAY = f"import sys, os, time; sys.stdin.readline(); print('{ROW}', flush=True); "
PROGRAMS = {
    "good": SAY,
    "hangs": SAY + "time.sleep(60)",
    "holds on": SAY + "os.close(1); time.sleep(60)",
    "crashes": SAY + "os.kill(os.getpid(), 11)",
    "raises": SAY + "raise ValueError('no such thing')",
    "wrong": SAY + """print('{"what": "a", "error": 2, "limit": 1, "passed": false, "why": ""}')""",
    "never starts": "raise ImportError('no module')",
}


def run(folder: Path, *names: str, seconds: float = 60, limit: float = 20) -> dict[str, str]:
    """The status of each part."""
    parts = tuple(Part(name, "Correct", "", "", 1 if name in {"hangs", "holds on"} else limit) for name in names)
    report = Report(folder / "out", parts, {"device": "cpu"})
    run_parts(
        report,
        lambda name, log: Worker([sys.executable, "-S", "-c", PROGRAMS[name]], log, os.environ),
        seconds=seconds,
        scratch=folder / "scratch",
        log=folder / "gpu.log",
    )
    return {outcome.part.name: outcome.status for outcome in report.outcomes}


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("hangs", "stopped at its limit of 1 s"),
        ("holds on", "did not end by its limit of 1 s"),
        ("crashes", "ended by SIGSEGV"),
        ("raises", "failed: ValueError: no such thing"),
        ("wrong", "failed: 1 wrong"),
        ("never starts", "failed: ImportError: no module"),
    ],
)
def test_a_failing_part_does_not_stop_the_others(name: str, status: str, tmp_path: Path) -> None:
    assert run(tmp_path, name, "good") == {name: status, "good": PASSED}
    written = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert [len(part["rows"]) for part in written["parts"]] == [{"wrong": 2, "never starts": 0}.get(name, 1), 1]
    assert not written["good"]
    assert status in (tmp_path / "out" / "gpu.md").read_text()
    assert f"==== {name}" in (tmp_path / "gpu.log").read_text()


def test_parts_that_do_not_fit_into_the_time_are_not_run(tmp_path: Path) -> None:
    assert run(tmp_path, "good", seconds=1) == {"good": "not run: the 1 s were over"}


def test_child_processes_of_a_part_end_with_it(tmp_path: Path) -> None:
    started = tmp_path / "started"
    # As in a worker, whose standard output is for rows alone.
    child = f"import subprocess; child = subprocess.Popen(['sleep', '60'], stdout=2); open({str(started)!r}, 'w')"
    child += ".write(str(child.pid))"
    PROGRAMS["leaves a child"] = SAY + child
    assert run(tmp_path, "leaves a child") == {"leaves a child": PASSED}
    deadline = time.monotonic() + 10
    while _is_running(int(started.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_all_parts_usually_fit_into_nine_minutes() -> None:
    assert len({part.name for part in PARTS}) == len(PARTS)
    # Limits are for hangs: what usually runs takes a half of them.
    assert sum(part.seconds for part in PARTS) / 2 < 540


def test_only_selects_parts_by_name() -> None:
    assert named_parts([]) == PARTS
    assert [part.name for part in named_parts(["ranks"])] == ["machine", "ranks"]
    with pytest.raises(SystemExit, match="--only x: the parts are machine, "):
        named_parts(["x"])
