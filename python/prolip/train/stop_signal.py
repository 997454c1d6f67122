"""Stop a run on SIGINT, SIGTERM or SIGHUP, after the same step on all ranks."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import FrameType
from typing import Self, TypeVar

import torch
import torch.distributed as dist

from prolip.distributed import Ranks

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

T = TypeVar("T")


class StopRequest:
    """Catches SIGINT, SIGTERM and SIGHUP, and agrees with all ranks on the step to stop after.

    Every step starts an asynchronous all-reduce of the received signal, and the next step reads the result. A single
    process also stops while it waits for data; one of several ranks finishes the step that the others have begun.

    A context manager, which restores the earlier signal handlers.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.signal = 0
        """The agreed one, or 0."""
        self._received = 0
        self._interruptible = False
        self._pending: tuple[torch.Tensor, dist.Work] | None = None
        self._group = ranks.with_own_group().waiting
        self._before = {number: signal.getsignal(number) for number in _SIGNALS}
        if self._before[signal.SIGHUP] is signal.SIG_IGN:  # nohup: the run outlives its terminal
            del self._before[signal.SIGHUP]

    def until_stopped(self, batches: Iterator[T]) -> Iterator[T]:
        """Yield batches until all ranks stop. All ranks call this; afterwards `batches` may have lost one."""
        while not self.signal:
            try:
                self._interruptible = self._group is None
                if self._interruptible and self._received:
                    raise KeyboardInterrupt
                batch = next(batches)
            except KeyboardInterrupt:  # the loader waits for it, whatever the signal
                self.signal = self._received
                return
            finally:
                self._interruptible = False
            yield batch
            self.signal = self._agreed()

    def _agreed(self) -> int:
        """The signal that all ranks stop for, or 0."""
        if self._group is None:
            return self._received
        agreed = 0
        if self._pending is not None:
            reduced, running = self._pending
            running.wait()
            agreed = int(reduced.item())
        flag = torch.tensor([self._received])
        work = dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self._group, async_op=True)
        assert work is not None
        self._pending = (flag, work)
        return agreed

    def __enter__(self) -> Self:
        for number in self._before:
            signal.signal(number, self._receive)
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._pending is not None and kind is None:
            self._pending[1].wait()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        if self._interruptible:
            raise KeyboardInterrupt
