"""Run parts one after another, each in a process of its own that is killed when its time is over."""

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from subprocess import Popen, TimeoutExpired

from tests.gpu.report import FAILED, PASSED, RUNNING

ROOT = Path(__file__).resolve().parents[2]
_MIN_SECONDS = 5
"""With less time left, a part isn't started."""


def run_parts(report, command, *, environment, seconds, scratch, log):
    """Run all parts of a report within `seconds`.

    Args:
        report: the parts, and where the results go.
        command: of a part with a time limit; it writes rows to its standard output.
        environment: of the processes.
        seconds: time for all of them.
        scratch: folder for the processes' output.
        log: file that collects their standard errors.
    """
    deadline = time.monotonic() + seconds
    scratch.mkdir(parents=True, exist_ok=True)
    log.write_text("", encoding="utf-8")
    for outcome in report.outcomes:
        left = deadline - time.monotonic()
        if left < _MIN_SECONDS:
            outcome.status = f"not run: the {seconds:.0f} s were over"
        else:
            limit, outcome.status = min(outcome.part.seconds, left), RUNNING
            report.write()
            errors = _run_one(outcome, command(outcome.part.name, limit), limit, environment, scratch)
            with log.open("a", encoding="utf-8") as whole:
                whole.write(f"==== {outcome.part.name}\n{errors}\n")
        report.write()
        print(f"{outcome.part.name}: {outcome.status}", flush=True)


def _run_one(outcome, command, limit, environment, scratch):
    """Run a part, fill its outcome, and return its standard error."""
    rows, errors, started, code = scratch / "rows", scratch / "errors", time.monotonic(), None
    with rows.open("wb") as out, errors.open("wb") as err:
        process = Popen(command, cwd=ROOT, env=dict(environment), stdout=out, stderr=err, start_new_session=True)
        with suppress(TimeoutExpired):
            try:
                code = process.wait(limit)
            finally:  # the process, and all that it has started; one that a driver holds is left behind
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)
    outcome.seconds = round(time.monotonic() - started, 1)
    outcome.rows = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    told = errors.read_text(encoding="utf-8", errors="replace")
    wrong = sum(row.get("passed") is False for row in outcome.rows)
    if code is None:
        outcome.status = f"stopped at its limit of {limit:.0f} s"
    elif code < 0:
        outcome.status = f"ended by {signal.Signals(-code).name}"
    elif code > 0:
        outcome.status = f"{FAILED}: {[f'exit status {code}', *filter(str.strip, told.splitlines())][-1][:300]}"
    else:
        outcome.status = f"{FAILED}: {wrong} wrong" if wrong else PASSED
    return told
