"""How this process's memory is kept for further use."""

from __future__ import annotations

import ctypes
import platform

# From glibc's malloc.h; mallopt(3) says what they mean.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER, _NONE = -1, 0


def keep_freed_memory() -> bool:
    """Lets this process keep what it frees, for the next batch takes as much; whether the C library could be told so.

    By itself glibc asks the system for each large tensor and gives it back at once, and the system clears every page of
    it again: a sixth of a training step on a CPU, a third of embedding (docs/benchmarks.md). Only glibc can be told.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_TRIM_THRESHOLD, _NEVER)) and bool(libc.mallopt(_MMAP_MAX, _NONE))
