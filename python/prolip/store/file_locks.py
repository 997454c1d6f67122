"""Locks of files, which the kernel releases when a process dies."""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import time
from datetime import datetime
from pathlib import Path

from prolip.errors import UserError
from prolip.store.disk_full import writing

log = logging.getLogger(__name__)

LOCK_SECONDS = 10.0
"""Seconds to wait for a killed process to end."""


def lock_file(path: Path) -> int:
    """Open a file, lock it until it is closed or the process dies, write the owner into it, and return its descriptor.

    The lock is the kernel's (flock). Some storage does not share it between machines.

    Raises:
        UserError: another process has the lock; its owner is named.
    """
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            import fcntl  # Windows has none

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_here = os.path.samestat(os.fstat(descriptor), path.stat())
        except (BlockingIOError, FileNotFoundError):
            is_here = False
        except (ImportError, OSError) as error:
            log.warning("%s: its storage has no file locks (%s): let no other command write there", path.parent, error)
            is_here = True
        if is_here:  # else another process has the lock, or its owner has just deleted the file
            try:
                with writing(path):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, owner().encode(), 0)
            except BaseException:
                os.close(descriptor)
                raise
            return descriptor
        holder = os.pread(descriptor, 1 << 12, 0).decode()
        os.close(descriptor)
        if time.monotonic() > deadline:
            raise in_use(path.parent, holder)
        time.sleep(0.1)


def owner() -> str:
    """This process, for others that want what it has; a token tells it from all others."""
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    own = {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "among": _processes()}
    return json.dumps(own | {"token": secrets.token_hex(16)})


def has_ended(owner: str) -> bool:
    """Whether an owner is known to have ended: only one of the same machine and PID namespace can be."""
    try:
        known = json.JSONDecoder().raw_decode(owner)[0]
        if known["among"] is not None and known["among"] == _processes():
            os.kill(known["pid"], 0)
    except ProcessLookupError:
        return True
    except (ValueError, TypeError, KeyError, OSError):
        return False
    return False


def _processes() -> str | None:
    """The machine since its start, and the PID namespace, of this process; None where the system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def in_use(place: object, owner: str) -> UserError:
    """The error for a place that another process writes."""
    return UserError(place, "in use by another command: wait for it, stop it, or choose another --out", owner)
