"""Run parts one after another, each in a process of its own that is killed when its time is over."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE, Popen, TimeoutExpired
from typing import Any

from tests.gpu.report import FAILED, PASSED, RUNNING, Outcome, Report

ROOT = Path(__file__).resolve().parents[2]
_LEAST_SECONDS = 5
"""With less time left, a part isn't started."""


class Worker:
    """A process that imports what it needs and then waits for the word to start, so that imports cost no time."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.log = log
        with log.open("w", encoding="utf-8") as errors:
            self._process = Popen(
                command,
                cwd=ROOT,
                env=dict(environment),
                stdin=PIPE,
                stdout=PIPE,
                stderr=errors,
                start_new_session=True,
            )

    def run(self, limit: float, on_row: Callable[[dict[str, Any]], None]) -> str:
        """Run the part for at most `limit` seconds; returns PASSED, or why it is not."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        deadline = time.monotonic() + limit
        try:
            self._process.stdin.write(f"{limit}\n".encode())
            self._process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended already, and the log says why
        unread = b""
        while True:
            readable, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                self.kill()
                return f"stopped at its limit of {limit:.0f} s"
            received = os.read(self._process.stdout.fileno(), 1 << 16)
            if not received:
                break
            *lines, unread = (unread + received).split(b"\n")
            for line in lines:
                on_row(json.loads(line))
        try:
            code = self._process.wait(max(1.0, deadline - time.monotonic()))
        except TimeoutExpired:
            self.kill()
            return f"did not end by its limit of {limit:.0f} s"
        self.kill()  # what it has started
        if code == 0:
            return PASSED
        if code < 0:
            return f"ended by {signal.Signals(-code).name}"
        said = [line for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        return f"{FAILED}: {said[-1][:300] if said else f'exit status {code}'}"

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def kill(self) -> None:
        """End the process and all that it has started. One that a driver holds is left behind."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(TimeoutExpired):
            self._process.wait(10)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def run_parts(
    report: Report,
    start: Callable[[str, Path], Worker],
    *,
    seconds: float,
    scratch: Path,
    log: Path,
    say: Callable[[str], object] = lambda line: None,
) -> None:
    """Run all parts of a report within `seconds`.

    Args:
        report: the parts, and where the results go.
        start: starts the worker of a part; its standard error goes to the file.
        seconds: time for all of them.
        scratch: folder for the workers' logs.
        log: file that collects them.
        say: called with a line per part.
    """
    deadline = time.monotonic() + seconds
    scratch.mkdir(parents=True, exist_ok=True)
    log.write_text("", encoding="utf-8")
    files = [scratch / f"{place:02}.log" for place in range(len(report.outcomes))]
    ahead: list[Worker] = []
    try:
        for place, outcome in enumerate(report.outcomes):
            left = deadline - time.monotonic()
            limit = min(outcome.part.seconds, left)
            worker = ahead.pop() if ahead else None
            if left < _LEAST_SECONDS:
                outcome.status = f"not run: the {seconds:.0f} s were over"
            else:
                worker = worker or start(outcome.part.name, files[place])
                if place + 1 < len(report.outcomes):
                    ahead.append(start(report.outcomes[place + 1].part.name, files[place + 1]))
                _run_one(report, outcome, worker, limit)
                _append(log, outcome.part.name, worker.log)
            if worker is not None:
                worker.kill()
            report.write()
            say(f"{outcome.part.name}: {outcome.status}")
    finally:
        for worker in ahead:
            worker.kill()
        for outcome in report.outcomes:
            if outcome.status == RUNNING:
                outcome.status = "interrupted"
        report.write()


def _run_one(report: Report, outcome: Outcome, worker: Worker, limit: float) -> None:
    def on_row(row: dict[str, Any]) -> None:
        outcome.rows.append(row)
        report.write()

    outcome.status, started = RUNNING, time.monotonic()
    report.write()
    try:
        status = worker.run(limit, on_row)
    except BaseException:
        worker.kill()
        raise
    wrong = [row for row in outcome.rows if row.get("passed") is False]
    outcome.status = f"{FAILED}: {len(wrong)} wrong" if status == PASSED and wrong else status
    outcome.seconds = round(time.monotonic() - started, 1)


def _append(log: Path, name: str, file: Path) -> None:
    with log.open("a", encoding="utf-8") as whole:
        whole.write(f"==== {name}\n{file.read_text(encoding='utf-8', errors='replace')}\n")


def worker_command(part: str, *words: str) -> list[str]:
    return [sys.executable, "-m", "tests.gpu.worker", part, *words]
