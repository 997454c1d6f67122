"""CPU time and memory of a process and its children, from /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
TICK = 1 / os.sysconf("SC_CLK_TCK")
IDLE_FIELDS = frozenset((3, 4))
"""Positions of idle and iowait in the first line of /proc/stat."""


class Memory(NamedTuple):
    """Memory of a process and its children, in MB of 2^20 bytes."""

    peak_rss: float
    """Sum of each process's peak resident memory; shared pages count in each."""
    pss: float
    """Sum of each process's current resident memory, with shared pages divided among their processes."""


class Elapsed(NamedTuple):
    """What passed since a stopwatch was started."""

    seconds: float
    """Wall-clock time."""
    cpu_seconds: float
    """User and system time of this process and the children that it had at the start."""
    others_cores: float
    """Cores that the rest of the machine kept busy."""


def stopwatch() -> Callable[[], Elapsed]:
    """Start to measure, and return the function that tells what has passed since."""
    processes = tree()
    busy, cpu, started = machine_seconds(), cpu_seconds(processes), time.perf_counter()

    def elapsed() -> Elapsed:
        seconds = time.perf_counter() - started
        own = cpu_seconds(processes) - cpu
        return Elapsed(seconds, own, max(0.0, machine_seconds() - busy - own) / seconds)

    return elapsed


def tree() -> list[int]:
    """Return the ids of this process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], [os.getpid()]
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return found


def cpu_seconds(processes: list[int]) -> float:
    """Return the user and system time of the processes, in seconds."""
    stats = (_stat(process) for process in processes)
    return TICK * sum(int(fields[11]) + int(fields[12]) for fields in stats if fields)


def machine_seconds() -> float:
    """Return the busy CPU time of the whole machine since it started, in seconds."""
    numbers = (PROC / "stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]
    return TICK * sum(int(number) for place, number in enumerate(numbers) if place not in IDLE_FIELDS)


def memory(processes: list[int]) -> Memory:
    """Return the memory of the processes."""
    return Memory(
        peak_rss=sum(_kilobytes(process, "status", "VmHWM") for process in processes) / 1024,
        pss=sum(_kilobytes(process, "smaps_rollup", "Pss") for process in processes) / 1024,
    )


def _stat(process: int) -> list[str]:
    """Return the fields of /proc/PROCESS/stat from the state on; none if the process has ended."""
    try:
        text = (PROC / str(process) / "stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return []
    # The name before the state may hold spaces and parentheses.
    return text.rpartition(")")[2].split()


def _kilobytes(process: int, file: str, field: str) -> int:
    """Return a number from /proc/PROCESS/FILE; 0 if the process has ended."""
    try:
        lines = (PROC / str(process) / file).read_text(encoding="utf-8", errors="replace").splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), 0)
