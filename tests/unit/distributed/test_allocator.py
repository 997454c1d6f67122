"""Freed memory is reused."""

import platform
import subprocess
import sys

import pytest

WORK = """
import resource, sys
from prolip.distributed.allocator import keep_freed_memory
told = sys.argv[1] == "told" and keep_freed_memory()
def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
import ctypes
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
def work():
    memory = libc.malloc(64 << 20)
    ctypes.memset(memory, 1, 64 << 20)
    libc.free(memory)
work()
before = pages()
for _ in range(4):
    work()
sys.stdout.write(f"{told} {pages() - before}")
"""
PAGES = 4 * (64 << 20) // 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
@pytest.mark.parametrize("told", [True, False])
def test_memory_is_cleared_once_and_not_again(told):
    done = subprocess.run(
        [sys.executable, "-c", WORK, "told" if told else "by itself"],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    answer, pages = done.stdout.split()
    assert answer == str(told)
    assert int(pages) < 0.01 * PAGES if told else int(pages) > 0.9 * PAGES
