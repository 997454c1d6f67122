"""Lock a run's folder, so that two trainings never write into it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self, cast

from prolip.checkpoint.folder import wait_until
from prolip.distributed import Ranks
from prolip.errors import UserError, of_os_error
from prolip.store.file_locks import lock_file

LOCK = "lock.json"


class RunLock:
    """Locks a run's folder (`lock_file`) until the block ends or the process dies. All ranks create one; rank 0 locks.

    Raises:
        UserError: on all ranks, if another process holds the folder, or if a rank does not see what rank 0 wrote.
    """

    def __init__(self, folder: Path, ranks: Ranks) -> None:
        self._descriptor: int | None = None
        holder, failure = "", cast(UserError | None, None)
        if ranks.rank == 0:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                self._descriptor = lock_file(folder / LOCK)
                holder = _read(folder / LOCK)
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


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
