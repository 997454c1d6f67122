"""Stop a run on SIGINT, SIGTERM or SIGHUP, after the same step on all ranks."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Self

import torch
import torch.distributed as dist

from prolip.distributed import Ranks

_HANG_UP = getattr(signal, "SIGHUP", signal.SIGTERM)  # Windows has none
_SIGNALS = {signal.SIGINT, signal.SIGTERM, _HANG_UP}


class StopRequest:
    """Catches SIGINT, SIGTERM and SIGHUP (the terminal is gone) and agrees with all ranks on the step to stop after.

    A signal may reach the ranks at different steps, but all must save after the same one. So every step starts an
    asynchronous all-reduce of the received signal, and the next step reads the result: no rank waits.

    A context manager: on exit the earlier signal handlers are restored.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._received = 0
        self._pending: tuple[torch.Tensor, dist.Work] | None = None
        self._group = ranks.with_own_group().waiting
        self._before = {number: signal.getsignal(number) for number in _SIGNALS}
        if self._before[_HANG_UP] is signal.SIG_IGN:  # nohup: the run outlives its terminal
            del self._before[_HANG_UP]

    def agreed(self) -> int:
        """Return the signal to stop for, the same on every rank; 0 to go on. All ranks call this once per step."""
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
