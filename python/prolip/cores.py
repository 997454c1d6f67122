"""How many cores a process may use."""

from prolip import _core


def usable_cores() -> int:
    """How many cores this process may use, by its affinity and the quota of its cgroup (that of a container)."""
    return _core.usable_cores()
