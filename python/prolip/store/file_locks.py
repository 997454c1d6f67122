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

from prolip.errors import UserError, check
from prolip.store.disk_full import writing

log = logging.getLogger(__name__)

LOCK_SECONDS = 10.0
"""For a killed process to end."""


def lock_file(path: Path) -> int:
    """Open a file, lock it until it is closed or the process dies, write the owner into it; returns its descriptor.

    The lock is the kernel's (flock). Some storage does not share it between machines.

    Raises:
        UserError: another process has the lock; its owner is named. Or the path is a link, or no regular file.
    """
    deadline = time.monotonic() + LOCK_SECONDS
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    # The token tells this process from all others.
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "token": secrets.token_hex(16)}
    while True:
        own = not path.is_symlink() and (path.is_file() or not path.exists())
        check(own, path, "must be a regular file, since the lock's owner is written into it", "a link, or no file")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
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
                    os.pwrite(descriptor, json.dumps(owner).encode(), 0)
            except BaseException:
                os.close(descriptor)
                raise
            return descriptor
        holder = os.pread(descriptor, 1 << 12, 0).decode()
        os.close(descriptor)
        if time.monotonic() > deadline:
            rule = "in use by another command: wait for it, stop it, or choose another --out"
            raise UserError(path.parent, rule, holder)
        time.sleep(0.1)
