"""What Linux says of a process and its children: processor time and memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
TICK = 1 / os.sysconf("SC_CLK_TCK")
IDLE_FIELDS = frozenset((3, 4))
"""Places of idle and iowait among the numbers of /proc/stat's first line."""


class Memory(NamedTuple):
    """Memory of a process and its children, in MB of 2^20 bytes."""

    peak_rss: float
    """Sum of the most that each had resident; pages that several share count in each."""
    pss: float
    """Sum of what each has resident now, shared pages divided among those that share them."""


def tree() -> list[int]:
    """Ids of this process and all its descendants."""
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
    """User and system time of the processes, in seconds."""
    stats = (_stat(process) for process in processes)
    return TICK * sum(int(fields[11]) + int(fields[12]) for fields in stats if fields)


def machine_seconds() -> float:
    """Processor time that the whole machine was busy since it started, in seconds."""
    numbers = (PROC / "stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]
    return TICK * sum(int(number) for place, number in enumerate(numbers) if place not in IDLE_FIELDS)


def memory(processes: list[int]) -> Memory:
    """Memory of the processes."""
    return Memory(
        peak_rss=sum(_kilobytes(process, "status", "VmHWM") for process in processes) / 1024,
        pss=sum(_kilobytes(process, "smaps_rollup", "Pss") for process in processes) / 1024,
    )


def _stat(process: int) -> list[str]:
    """The fields of /proc/PROCESS/stat from the state on; empty when the process is gone."""
    try:
        text = (PROC / str(process) / "stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return []
    # The name before the state may hold spaces and parentheses.
    return text.rpartition(")")[2].split()


def _kilobytes(process: int, file: str, field: str) -> int:
    """A number of /proc/PROCESS/FILE; 0 when the process is gone."""
    try:
        lines = (PROC / str(process) / file).read_text(encoding="utf-8", errors="replace").splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), 0)
