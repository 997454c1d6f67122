"""Lock a run's folder, so that two trainings never write into it, and check that all ranks see the same folder."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from pathlib import Path
from typing import Self, cast
from uuid import uuid4

from prolip.checkpoint.folder import wait_until
from prolip.distributed import Ranks
from prolip.errors import UserError, of_os_error
from prolip.files import writing

log = logging.getLogger(__name__)

LOCK = "lock.json"
_WAIT_SECONDS = 10.0
"""Seconds to wait for a killed process to end."""


class RunLock:
    """Locks a run's folder until the block ends or the process dies. All ranks create one; rank 0 has the lock.

    The lock is the kernel's (flock). Some storage does not share it between machines.

    Raises:
        UserError: on all ranks, if another process holds the folder, or if a rank does not see what rank 0 wrote.
    """

    def __init__(self, folder: Path, ranks: Ranks) -> None:
        self._descriptor: int | None = None
        holder, failure = "", cast(UserError | None, None)
        if ranks.rank == 0:
            holder = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "token": uuid4().hex})
            try:
                folder.mkdir(parents=True, exist_ok=True)
                self._descriptor = _acquire(folder / LOCK)
                with writing(folder / LOCK):
                    os.ftruncate(self._descriptor, 0)
                    os.pwrite(self._descriptor, holder.encode(), 0)
            except (UserError, OSError) as error:
                failure = error if isinstance(error, UserError) else of_os_error(error)
        holder, failure = ranks.broadcast((holder, failure))
        if failure is None:
            seen = ranks.all_gather(wait_until(lambda: _read(folder / LOCK) == holder))
            if not all(seen):
                value = ranks.broadcast(f"{folder}, unseen by rank {seen.index(False)}")
                failure = UserError("out", "must be a folder that all machines share", value)
        if failure is not None:
            self.close()
            raise failure

    def close(self) -> None:
        """Release the folder."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _acquire(path: Path) -> int:
    """Open and lock a file; returns its descriptor.

    Raises:
        UserError: another process holds it.
    """
    import fcntl  # Windows, where models are loaded, has none

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise UserError(
                    path.parent, f"in use by another run: stop it, or choose another --out ({_read(path)})"
                ) from None
            time.sleep(0.1)
        except OSError as error:
            log.warning("%s: its storage has no file locks (%s): let no other run write there", path.parent, error)
            return descriptor
        else:
            return descriptor


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
