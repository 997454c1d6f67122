"""A clear error when the disk is full."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prolip.errors import DiskFullError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""The disk is full, a quota is used up, or a limit on the size of a file is reached."""


@contextmanager
def writing(path: Path, size: int | None = None) -> Iterator[None]:
    """Raise DiskFullError, with the path and the bytes needed and free, if the block fails because the disk is full.

    Args:
        path: the file or folder that it writes.
        size: bytes that it needs, if known.
    """
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        free = shutil.disk_usage(_existing(path)).free
        at: BaseException = error
        while not isinstance(at, OSError) and (inner := at.__cause__ or at.__context__) is not None:
            at = inner  # torch wraps file errors
        reason = getattr(at, "errno", None)
        if size is not None and free < size:  # some libraries do not tell the system's reason
            reason = errno.ENOSPC
        if reason not in _FULL:
            raise
        needed = "" if size is None else f"{size:,} bytes are needed, "
        raise DiskFullError(path, f"{os.strerror(reason).lower()}: {needed}{free:,} are free") from error


def _existing(path: Path) -> Path:
    """`path`, or the nearest folder above it."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
