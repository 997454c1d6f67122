"""Settings of this process's allocator."""

from __future__ import annotations

import ctypes
import platform

# From glibc's malloc.h; see mallopt(3).
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER, _NONE = -1, 0


def keep_freed_memory() -> bool:
    """Make glibc keep freed memory for the next batch; returns False if the C library is not glibc or refuses.

    By default glibc returns each large tensor to the system, which then clears every page again: a sixth of the time of
    a training step on a CPU and a third of that of embedding (docs/benchmarks.md).
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_TRIM_THRESHOLD, _NEVER)) and bool(libc.mallopt(_MMAP_MAX, _NONE))
