"""A clear error when the disk is full."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

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
        reason = _why_full(error)
        if reason is None:
            raise
        needed = "" if size is None else f"{size:,} bytes are needed, "
        free = shutil.disk_usage(_existing(path)).free
        raise DiskFullError(path, f"{os.strerror(reason).lower()}: {needed}{free:,} are free") from error


def _why_full(error: BaseException) -> int | None:
    """The errno that says that the disk is full; None if the write failed for another reason."""
    at: BaseException | None = error
    while at is not None:  # torch wraps file errors
        # The error of safetensors has its number only in its text.
        told = re.search(r"\(os error (\d+)\)", str(at)) if isinstance(at, SafetensorError) else None
        number = at.errno if isinstance(at, OSError) else int(told[1]) if told else None
        if number in _FULL:
            return number
        at = at.__cause__ or at.__context__
    return None


def _existing(path: Path) -> Path:
    """The nearest existing folder: `path` or one above it."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
