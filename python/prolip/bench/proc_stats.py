"""CPU time and memory of a process and its children, from /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_TICK = 1 / os.sysconf("SC_CLK_TCK")


class Elapsed(NamedTuple):
    """Since a stopwatch was started."""

    seconds: float
    cpu_seconds: float
    """Of this process and the children that it had at the start."""
    others_cores: float


def stopwatch() -> Callable[[], Elapsed]:
    """Start to measure; the result returns what has passed."""
    processes = _tree()
    busy, cpu, started = _machine_seconds(), _cpu_seconds(processes), time.perf_counter()

    def elapsed() -> Elapsed:
        seconds = time.perf_counter() - started
        own = _cpu_seconds(processes) - cpu
        return Elapsed(seconds, own, max(0.0, _machine_seconds() - busy - own) / seconds)

    return elapsed


def memory() -> tuple[float, float]:
    """Memory of this process and its descendants in MB of 2^20 bytes.

    First the sum of their resident peaks, where shared pages count in each; then what is resident now, with shared
    pages divided.
    """
    peaks = sum(_kilobytes(process, "status", "VmHWM") for process in _tree())
    return peaks / 1024, sum(_kilobytes(process, "smaps_rollup", "Pss") for process in _tree()) / 1024


def _tree() -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    tree, waiting = [], [os.getpid()]
    while waiting:
        tree.append(waiting.pop())
        waiting += children.get(tree[-1], [])
    return tree


def _cpu_seconds(processes: list[int]) -> float:
    stats = (_stat(process) for process in processes)
    return _TICK * sum(int(fields[11]) + int(fields[12]) for fields in stats if fields)


def _machine_seconds() -> float:
    """Since it started, without idle and iowait."""
    user, nice, system, _, _, *rest = map(int, _read("stat").split("\n")[0].split()[1:9])
    return _TICK * (user + nice + system + sum(rest))


def _stat(process: int) -> list[str]:
    """From the state on; none if the process has ended."""
    # The name before the state may hold spaces and parentheses.
    return _read(f"{process}/stat").rpartition(")")[2].split()


def _kilobytes(process: int, file: str, field: str) -> int:
    lines = _read(f"{process}/{file}").splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), 0)


def _read(file: str) -> str:
    try:
        return Path("/proc", file).read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""
