"""How many cores a process may use, and how many it should use beside others."""

from __future__ import annotations

import os
from collections.abc import Sequence

from prolip import _core


def usable_cores() -> int:
    """How many cores this process may use, by its affinity and the quota of its cgroup (that of a container)."""
    return _core.usable_cores()


def bound_cores() -> set[int]:
    """The numbers of the cores that this process is bound to; all where the system does not tell (macOS, Windows)."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(usable_cores()))


def share_of_cores(bound: set[int], of_all: Sequence[set[int]]) -> int:
    """Return how many cores this process should use, at least 1: of each core its share, within the cgroup's quota.

    A launcher may bind the processes of a machine to cores of their own, or to those of their GPU's socket.

    Args:
        bound: the cores that this process is bound to.
        of_all: the same of all processes on this machine, this one included.
    """
    share = sum(1 / sum(core in cores for cores in of_all) for core in bound)
    quota = usable_cores()
    if quota < len(bound):  # the processes of a machine share a quota
        share = min(share, quota / len(of_all))
    return max(1, int(share + 1e-6))
