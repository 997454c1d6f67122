"""One run per folder, while its process lives."""

import subprocess
import sys

import pytest
from tests.support.forked import Forked
from tests.support.refusals import refusal_of
from tests.support.untrained_run import ALONE

from prolip.checkpoint import RunLock
from prolip.errors import UserError
from prolip.store import file_locks

HOLD = """
import sys, time
from pathlib import Path
from tests.support.untrained_run import ALONE
from prolip.checkpoint import RunLock
lock = RunLock(Path(sys.argv[1]), ALONE)
print("held", flush=True)
time.sleep(60)
"""


def test_a_folder_is_free_after_a_run_and_after_a_kill(tmp_path, monkeypatch):
    monkeypatch.setattr(file_locks, "LOCK_SECONDS", 0.3)
    run = tmp_path / "runs" / "one"
    with RunLock(run, ALONE), pytest.raises(UserError, match=r"in use"):
        RunLock(run, ALONE)
    with Forked([sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=rf'"pid": {process.pid}'):
            RunLock(run, ALONE)
        process.kill()
    RunLock(run, ALONE).close()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with refusal_of(str(tmp_path / "file")):
        RunLock(tmp_path / "file", ALONE)
