"""Stop a run on SIGINT, SIGTERM or SIGHUP, after the same step on all ranks."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Self, TypeVar

import torch
import torch.distributed as dist

from prolip.data import shown_shard
from prolip.distributed import Ranks

_HANG_UP = getattr(signal, "SIGHUP", signal.SIGTERM)  # Windows has none
_SIGNALS = {signal.SIGINT, signal.SIGTERM, _HANG_UP}

T = TypeVar("T")


class StopRequest:
    """Catches SIGINT, SIGTERM and SIGHUP (the terminal is gone) and agrees with all ranks on the step to stop after.

    A signal may reach the ranks at different steps, or a rank whose next batch never comes. But all must save after the
    same step, and a rank that has begun a step needs the others to end it. So all ranks agree before each step, on the
    host: a GPU still has work of earlier steps meanwhile.

    A context manager: on exit the earlier signal handlers are restored.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.signal = 0
        """The signal that all ranks stop for; 0 as long as there is none."""
        self.waited_s = 0
        """Seconds that a rank had waited for its next batch when the signal came; the largest of all ranks."""
        self._received = 0
        self._waiting = False
        self._group = ranks.with_own_group().waiting
        self._before = {number: signal.getsignal(number) for number in _SIGNALS}
        if self._before[_HANG_UP] is signal.SIG_IGN:  # nohup: the run outlives its terminal
            del self._before[_HANG_UP]

    def until_stopped(self, batches: Iterator[T]) -> Iterator[T]:
        """Yield batches until a rank receives a signal, which also ends a wait for the next batch. All ranks call this.

        The batches must not be used afterwards: the signal may have lost one.
        """
        while True:
            started, batch = time.monotonic(), None
            try:
                self._waiting = True
                try:
                    batch = None if self._received else next(batches)
                finally:
                    self._waiting = False
            except KeyboardInterrupt:  # from `_receive`
                pass
            self._agree(time.monotonic() - started)
            if self.signal:
                return
            assert batch is not None
            yield batch

    def sentence(self, step: int, shards: Sequence[str]) -> str:
        """Say which signal ended the run, what the run waited for, and what to do next."""
        saved, then = ("saved", "resume") if step else ("nothing to save", "start")
        waited = f" (it had waited {self.waited_s} s for a batch of {', '.join(map(shown_shard, shards))})"
        return (
            f"{signal.Signals(self.signal).name} at step {step}, {saved}: run the same command again to {then}"
            f"{waited if self.waited_s else ''}"
        )

    def _agree(self, waited_s: float) -> None:
        found = torch.tensor([self._received, int(waited_s) if self._received else 0])
        if self._group is not None:
            dist.all_reduce(found, op=dist.ReduceOp.MAX, group=self._group)
        self.signal, self.waited_s = found.tolist()

    def __enter__(self) -> Self:
        for number in self._before:
            signal.signal(number, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        if self._waiting:
            raise KeyboardInterrupt  # the loader waits for it, whatever the signal
