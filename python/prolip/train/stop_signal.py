"""Stop a run on SIGINT, SIGTERM or SIGHUP, after the same step on all ranks."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Self, TypeVar

import torch
import torch.distributed as dist

from prolip.data import without_secrets
from prolip.distributed import Ranks
from prolip.errors import UserError

_HANG_UP = getattr(signal, "SIGHUP", signal.SIGTERM)  # Windows has none
_SIGNALS = {signal.SIGINT, signal.SIGTERM, _HANG_UP}

T = TypeVar("T")

PATIENCE_S = 30
"""Seconds that one of several ranks waits for its next batch after a signal. A launcher gives the run 110 to save."""


class StopRequest:
    """Catches SIGINT, SIGTERM and SIGHUP (the terminal is gone) and agrees with all ranks on the step to stop after.

    A signal may reach the ranks at different steps, but all must save after the same one. So every step starts an
    asynchronous all-reduce of the received signal, and the next step reads the result: no rank waits for it.

    A single process also stops while it waits for data. One of several ranks cannot, since the others need it to end
    the step that they have begun; if no batch comes in time, the rank fails.

    A context manager: on exit the earlier signal handlers are restored.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.signal = 0
        """Number of the signal that the run stops for; 0 before one came."""
        self.waited_s = 0
        """Seconds of the wait for data that the signal ended."""
        self._received = 0
        self._waiting = False
        self._pending: tuple[torch.Tensor, dist.Work] | None = None
        self._group = ranks.with_own_group().waiting
        self._before = {number: signal.getsignal(number) for number in _SIGNALS}
        if self._before[_HANG_UP] is signal.SIG_IGN:  # nohup: the run outlives its terminal
            del self._before[_HANG_UP]

    def until_stopped(self, batches: Iterator[T]) -> Iterator[T]:
        """Yield batches until all ranks stop. All ranks call this, and use `batches` no more: one may be lost.

        Raises:
            UserError: this is one of several ranks, and no batch came within `PATIENCE_S` of a signal.
        """
        while not self.signal:
            batch = self._next(batches)
            if batch is None:
                self.signal = self._received
            else:
                yield batch
                self.signal = self._agreed()

    def sentence(self, step: int, shards: Sequence[str]) -> str:
        """Say which signal ended the run, what the run waited for, and what to do next."""
        saved, then = ("saved", "resume") if step else ("nothing to save", "start")
        waited = f" (it had waited {self.waited_s} s for a batch of {', '.join(map(without_secrets, shards))})"
        return (
            f"{signal.Signals(self.signal).name} at step {step}, {saved}: run the same command again to {then}"
            f"{waited if self.waited_s else ''}"
        )

    def _next(self, batches: Iterator[T]) -> T | None:
        """The next batch, or None if a signal ended the wait for it."""
        started, batch = time.monotonic(), None
        try:
            self._waiting = True
            try:
                if self._received:
                    self._limit_wait()
                batch = next(batches)
            finally:
                self._waiting = False
        except KeyboardInterrupt:  # from `_receive` or `_give_up`
            pass
        if self._group is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if batch is None:
            self.waited_s = int(time.monotonic() - started)
            if self._group is not None:
                raise UserError(
                    f"{signal.Signals(self._received).name}: no batch came within {PATIENCE_S} s of the signal, so the "
                    f"run ends without saving; its last checkpoint stays"
                )
        return batch

    def _limit_wait(self) -> None:
        if self._group is None:
            raise KeyboardInterrupt  # the loader waits for it, whatever the signal
        signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)

    def _agreed(self) -> int:
        """The signal that all ranks stop for, 0 to go on."""
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
        if self._group is not None:
            self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._give_up)
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._pending is not None and kind is None:
            self._pending[1].wait()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        if self._waiting:
            self._limit_wait()

    def _give_up(self, number: int, frame: FrameType | None) -> None:
        if self._waiting:
            raise KeyboardInterrupt
