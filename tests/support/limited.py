"""Places with limited writing: a full disk, a quota, a read-only folder."""

import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """Files of this process can't grow beyond `size`: the same error as a full disk, with another number.

    What is first imported meanwhile is not cached: Python would keep the half of a compiled module that fits.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with patch.object(sys, "dont_write_bytecode", True):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def small_disk(path: Path, kilobytes: int) -> Iterator[bool]:
    """Mount a small disk at a path; False where that is not allowed."""
    path.mkdir()
    mount = shutil.which("mount")
    options = f"size={kilobytes}k"
    made = mount is not None and (
        subprocess.run([mount, "-t", "tmpfs", "-o", options, "tmpfs", str(path)], capture_output=True, check=False)
    )
    if not made or made.returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)
