"""One run per folder: a live holder is named, a stale lock is taken over, and all ranks must see the folder."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support.forked import Forked
from tests.support.untrained_run import ALONE

from prolip.checkpoint import RunLock, folder, run_lock
from prolip.errors import UserError

HOLD = """
import os, sys, time
from pathlib import Path
from tests.support.untrained_run import ALONE
from prolip.checkpoint import RunLock
lock = RunLock(Path(sys.argv[1]), ALONE)
if sys.argv[2] != "fork" or os.fork() != 0:
    print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "_WAIT_SECONDS", 0.3)
    monkeypatch.setattr(run_lock, "_BEAT_SECONDS", 0.5)
    monkeypatch.setattr(folder, "VISIBLE_SECONDS", 5.0)


def hold(path: Path, how: str = "") -> Forked:
    """A process that holds a folder."""
    process = Forked([sys.executable, "-c", HOLD, str(path), how], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def named(path: Path, **changes: Any) -> None:
    """Writes another holder into a lock file."""
    content = json.loads((path / "lock.json").read_text())
    (path / "lock.json").write_text(json.dumps({**content, **changes}))


def test_the_lock_is_released_after_a_run(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "one"
    with RunLock(run, ALONE):
        with pytest.raises(UserError, match=rf"one is in use by process {os.getpid()} on .* since .*UTC: stop it, or"):
            RunLock(run, ALONE)
        assert [path.name for path in run.iterdir()] == ["lock.json"]
    assert list(run.iterdir()) == []
    RunLock(run, ALONE).close()


def test_the_lock_of_a_killed_process_is_released(tmp_path: Path) -> None:
    with hold(tmp_path) as process, pytest.raises(UserError, match=rf"in use by process {process.pid} "):
        RunLock(tmp_path, ALONE)
    assert (tmp_path / "lock.json").exists()
    RunLock(tmp_path, ALONE).close()


def test_a_lock_waits_for_a_process_that_is_being_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "_WAIT_SECONDS", 30.0)
    with hold(tmp_path) as process:
        killer = threading.Timer(0.5, os.kill, (process.pid, signal.SIGKILL))
        killer.start()
        RunLock(tmp_path, ALONE).close()
        assert process.wait(10) == -signal.SIGKILL


def test_a_child_of_a_killed_process_does_not_hold_the_lock(tmp_path: Path) -> None:
    process = hold(tmp_path, "fork")
    child = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
    try:
        with process:
            process.kill()
            process.wait(10)
        with RunLock(tmp_path, ALONE), pytest.raises(UserError, match=rf"in use by process {os.getpid()} "):
            RunLock(tmp_path, ALONE)
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("error", [OSError(38, "not implemented"), None])
def test_without_file_locks_another_machines_holder_is_known_by_heartbeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError | None
) -> None:
    def no_lock(*_: int) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(fcntl, "flock", no_lock)
    held = RunLock(tmp_path, ALONE)
    if error is not None:
        with pytest.raises(UserError, match="in use by process"):  # known by its number
            RunLock(tmp_path, ALONE)
    named(tmp_path, place="another boot", host="n2", pid=7)
    with pytest.raises(UserError, match="in use by process 7 on n2"):
        RunLock(tmp_path, ALONE)
    held.close()
    RunLock(tmp_path, ALONE).close()
    (tmp_path / "lock.json").write_text(json.dumps({"host": "n2", "place": "x", "pid": 7, "started": "", "token": ""}))
    began = time.monotonic()
    RunLock(tmp_path, ALONE).close()  # it does not beat
    assert time.monotonic() - began >= 1.5


def test_a_deleted_folder_is_locked_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = tmp_path / "run"
    with RunLock(run, ALONE) as held:
        held.check()
        assert caplog.messages == []
        shutil.rmtree(run)
        held.check()
        assert caplog.messages == [f"{run} was deleted during the run, with its log until now"]
        with pytest.raises(UserError, match=f"in use by process {os.getpid()} "):
            RunLock(run, ALONE)
    assert list(run.iterdir()) == []


def test_a_folder_that_another_run_has_taken_is_left_to_it(tmp_path: Path) -> None:
    held = RunLock(tmp_path, ALONE)
    (tmp_path / "lock.json").unlink()
    with RunLock(tmp_path, ALONE) as other:
        with pytest.raises(UserError, match=rf"in use by process {os.getpid()} on .* since .*UTC: stop it, or choose"):
            held.check()
        held.close()
        other.check()
        named(tmp_path, place="another boot", host="n2", pid=7)  # of a machine that saw no heartbeat of this one
        with pytest.raises(UserError, match="in use by process 7 on n2"):
            other.check()
    assert json.loads((tmp_path / "lock.json").read_text())["host"] == "n2"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file"):
        RunLock(tmp_path / "file", ALONE)


def test_a_holder_on_another_machine_that_ends_during_the_wait_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    held = RunLock(tmp_path, ALONE)
    named(tmp_path, place="another boot", host="n2")

    def end(seconds: float) -> None:
        held.close()

    monkeypatch.setattr(time, "sleep", end)
    RunLock(tmp_path, ALONE).close()


def test_a_full_disk_names_the_lock_and_leaves_the_folder_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full_disk)
        with pytest.raises(UserError, match=r"lock\.json: no space left on device: .* are free"):
            RunLock(tmp_path, ALONE)
    RunLock(tmp_path, ALONE).close()


def test_a_run_lock_on_windows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with pytest.raises(UserError, match="runs need the file locks of Linux or macOS"):
        RunLock(tmp_path, ALONE)
