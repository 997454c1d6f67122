"""How a rank ends. After a failure it must not wait for the others, which may wait for it."""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from signal import SIGINT
from typing import NoReturn

from prolip.distributed.ranks import Ranks, stop
from prolip.errors import DataError, UserError

_CLOSING_SECONDS = 12
"""For a failed rank to close its open resources."""


@contextmanager
def failing_at_once(command: str, log: logging.Logger, ranks: Ranks) -> Iterator[ExitStack]:
    """Run one rank of a job; yields a stack that closes what the rank opens, and leaves the process group at the end.

    In a single process, a failure is raised. On one of several ranks, it is logged, open resources have some seconds to
    close, and the process ends without waiting for the others. The exit status is 2 for a user's error, 130 after
    Ctrl-C, otherwise 1.
    """
    status = 0
    try:
        with ExitStack() as opened:
            try:
                yield opened
            except (Exception, KeyboardInterrupt) as error:
                if ranks.world_size > 1:
                    status = _report(command, log, error, ranks)
                raise
    except (Exception, KeyboardInterrupt) as error:
        if ranks.world_size == 1:
            raise
        _end_process(status or _report(command, log, error, ranks))
    stop()


def _report(command: str, log: logging.Logger, error: BaseException, ranks: Ranks) -> int:
    """Log why this rank ends; returns the exit status. The process is killed if it does not end in time."""
    faulthandler.dump_traceback_later(_CLOSING_SECONDS, exit=True)
    if isinstance(error, KeyboardInterrupt):
        return 128 + SIGINT
    if isinstance(error, (UserError, DataError)):
        log_error(log, command, error, ranks)
        return 2
    log.critical("%s: rank %d failed", command, ranks.rank, exc_info=error)
    return 1


def _end_process(status: int) -> NoReturn:
    """At once: no exit handlers, no waiting for threads, no destructors of process groups."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # its disk may be full
            stream.flush()
    os._exit(status)


def log_error(log: logging.Logger, command: str, error: Exception, ranks: Ranks) -> None:
    """Of one of several ranks, unless another has logged the same."""
    assert ranks.store is not None
    try:
        is_first = ranks.store.add(f"error/{error}", 1) == 1
    except RuntimeError:  # the process that keeps the store has ended
        is_first = True
    if is_first:
        log.critical("%s: rank %d: %s", command, ranks.rank, error)
