"""Parts run in their own processes: one that fails or hangs stops no other, and the report is always complete."""

import json
import os
import sys

import pytest
from tests.gpu.parts import Part
from tests.gpu.report import PASSED, Report
from tests.gpu.schedule import run_parts

SAY = """import os, time; print('{"what": "one", "value": 1, "unit": "", "why": ""}', flush=True); """
PROGRAMS = {
    "good": SAY,
    "hangs": SAY + "time.sleep(60)",
    "crashes": SAY + "os.kill(os.getpid(), 11)",
    "raises": SAY + "raise ValueError('no such thing')",
    "wrong": SAY + """print('{"what": "a", "error": 2, "limit": 1, "passed": false, "why": ""}')""",
}


def run(folder, *names):
    """The status of each part."""
    parts = tuple(Part(name, "Correct", "", "", 1 if name == "hangs" else 20) for name in names)
    report = Report(folder / "out", parts, {"device": "cpu"})
    run_parts(
        report,
        lambda name, limit: [sys.executable, "-S", "-c", PROGRAMS[name]],
        environment=os.environ,
        seconds=60,
        scratch=folder / "scratch",
        log=folder / "gpu.log",
    )
    return {outcome.part.name: outcome.status for outcome in report.outcomes}


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("hangs", "stopped at its limit of 1 s"),
        ("crashes", "ended by SIGSEGV"),
        ("raises", "failed: ValueError: no such thing"),
        ("wrong", "failed: 1 wrong"),
    ],
)
def test_a_failing_part_does_not_stop_the_others(name, status, tmp_path):
    assert run(tmp_path, name, "good") == {name: status, "good": PASSED}
    written = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert [len(part["rows"]) for part in written["parts"]] == [2 if name == "wrong" else 1, 1]
    assert not written["good"]
    assert status in (tmp_path / "out" / "gpu.md").read_text()
    assert f"==== {name}" in (tmp_path / "gpu.log").read_text()
