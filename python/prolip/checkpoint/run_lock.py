"""Lock a run's folder, so that two trainings never write into it, and check that all ranks see the same folder."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self
from uuid import uuid4

from prolip.checkpoint.folder import wait_until
from prolip.distributed import Ranks
from prolip.errors import UserError, sentence
from prolip.files import writing

log = logging.getLogger(__name__)

LOCK = "lock.json"
_WAIT_SECONDS = 10.0
"""Time that a killed process may take to end."""
_BEAT_SECONDS = 5.0
_BEATS = 3
"""A holder on another machine counts as dead when it has not touched its lock for this many beats."""


@dataclass(frozen=True, kw_only=True)
class _Holder:
    """Who holds a lock."""

    host: str
    """Name of the machine."""
    place: str
    """Where process numbers are unique: one boot of a machine, and a PID namespace in it."""
    pid: int
    started: str
    """When it took the lock, UTC."""
    token: str
    """Random number of this lock: a rank that reads it sees the same folder as the holder."""

    @classmethod
    def this(cls) -> Self:
        started = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return cls(host=socket.gethostname(), place=_place(), pid=os.getpid(), started=started, token=uuid4().hex)

    def has_ended(self) -> bool:
        """Whether the holder is known to have ended: it ran on this machine, and no longer exists."""
        return self.place == _place() != "" and not Path(f"/proc/{self.pid}").exists()


class RunLock:
    """Holds a run's folder until the block ends or the process dies. All ranks create one; rank 0 has the lock.

    The lock is the kernel's (flock), so it ends with its process in any case. Some storage has no such locks, or only
    among the processes of one machine. So a holder also touches its file every few seconds, and a lock of another
    machine counts as long as the file is being touched.

    Raises:
        UserError: on all ranks, if another process holds the folder, or if a rank does not see what rank 0 wrote.
    """

    def __init__(self, folder: Path, ranks: Ranks) -> None:
        failure: str | None = None
        self._folder = folder
        self._held: _Held | None = None
        if ranks.rank == 0:
            try:
                self._held = _Held(folder)
            except (UserError, OSError) as error:
                failure = sentence(error)
        holder, failure = ranks.broadcast((None if self._held is None else self._held.holder, failure))
        if holder is not None:
            seen = wait_until(lambda: _read(folder / LOCK) == holder)
            places = ranks.all_gather("" if seen else f"rank {ranks.rank} on {socket.gethostname()}")
            if blind := next((place for place in places if place), None):
                failure = (
                    f"out is {folder}: {blind} does not see what rank 0 on {holder.host} wrote there; it must be a "
                    "folder that all machines share"
                )
            failure = ranks.broadcast(failure)  # the message with rank 0's path of the folder
        if failure is not None:
            self.close()
            raise UserError(failure)

    def check(self) -> None:
        """Check that the folder is still this run's, before it writes there. If somebody deleted it, lock a new one.

        Raises:
            UserError: another run holds it: somebody deleted the folder, or this run was stopped for a while.
        """
        if self._held is None:
            return
        holder = _read(self._folder / LOCK)
        if holder not in (None, self._held.holder):
            raise _in_use(self._folder, holder)
        if holder is None and not (self._folder / LOCK).exists():
            log.warning("%s was deleted during the run, with its log until now", self._folder)
            self.close()
            self._held = _Held(self._folder)

    def close(self) -> None:
        """Release the folder."""
        held, self._held = self._held, None
        if held is not None:
            held.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Held:
    """A lock that this process holds."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / LOCK
        descriptor = _acquire(path)
        self._path, self._descriptor, self._ended = path, descriptor, threading.Event()
        self.holder = _Holder.this()
        try:
            with writing(path):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(asdict(self.holder), indent=1).encode(), 0)
                os.fsync(descriptor)
        except BaseException:
            self.release()
            raise
        threading.Thread(target=self._beat, name="run lock", daemon=True).start()

    def release(self) -> None:
        """Remove the file and the lock."""
        self._ended.set()
        if _read(self._path) == self.holder:  # not another run's, which took the folder over
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def _beat(self) -> None:
        while not self._ended.wait(_BEAT_SECONDS):
            with suppress(OSError):  # may be temporary
                os.utime(self._descriptor)


def _acquire(path: Path) -> int:
    """Open and lock a file; returns its descriptor.

    Raises:
        UserError: another process holds it.
    """
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        locked, holder = _lock(descriptor), _read(path)
        is_free = locked is not False and (holder is None or not _lives(path, holder, locked=locked is True))
        is_there = _is_at(path, descriptor)
        if is_free and is_there:
            return descriptor
        os.close(descriptor)
        if not is_there:  # its holder has just removed it
            continue
        if locked is False and time.monotonic() < deadline:
            time.sleep(0.1)
        elif locked is False and holder is not None and holder.has_ended():
            path.unlink(missing_ok=True)  # the holder has ended, but a child process of it still has the lock
        else:
            raise _in_use(path.parent, holder)


def _in_use(folder: Path, holder: _Holder | None) -> UserError:
    who = "an unknown process" if holder is None else f"process {holder.pid} on {holder.host} since {holder.started}"
    return UserError(f"{folder} is in use by {who}: stop it, or choose another --out (it is in {LOCK})")


def _lock(descriptor: int) -> bool | None:
    """Try to lock a file: True on success, False if another process has locked it, None if its storage has no locks.

    Raises:
        UserError: this is Windows.
    """
    try:
        import fcntl
    except ModuleNotFoundError as error:
        raise UserError("runs need the file locks of Linux or macOS: Windows has others") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _lives(path: Path, holder: _Holder, *, locked: bool) -> bool:
    """Whether the process that wrote a lock file is alive; `locked` says whether we got the kernel's lock."""
    if holder.place == _place() != "":
        return not locked and not holder.has_ended()
    deadline = time.monotonic() + _BEATS * _BEAT_SECONDS
    with suppress(FileNotFoundError):  # it has just ended
        before = path.stat().st_mtime_ns
        while time.monotonic() < deadline:
            time.sleep(_BEAT_SECONDS / 10)
            with path.open("rb") as file:  # opening asks a file server for the times; `stat` may not
                if os.fstat(file.fileno()).st_mtime_ns != before:
                    return True
    return False


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether a path leads to the open file of a descriptor."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _read(path: Path) -> _Holder | None:
    """Return the holder that a lock file names; None if it names none."""
    try:
        return _Holder(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _place() -> str:
    """Return where process numbers are unique (see `_Holder.place`); empty if that is unknown."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""
