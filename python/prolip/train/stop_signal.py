"""Stopping a run between two steps, on all ranks at the same one."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Self

import torch
import torch.distributed as dist

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """SIGINT and SIGTERM, turned into an answer that all ranks get at the same step.

    Signals reach the ranks at different steps, yet all must save after the same one. So every step starts a reduction
    of "did a signal come?" that runs beside the step and is read at the next one: nobody waits for it.

    A context manager: outside it the signals act as before.
    """

    def __init__(self) -> None:
        self._received = 0
        self._pending: tuple[torch.Tensor, dist.Work] | None = None
        self._group: dist.ProcessGroup | None = None
        if dist.is_initialized():
            group = dist.new_group(backend="gloo")
            assert isinstance(group, dist.ProcessGroup)  # the other type is for ranks outside the group
            self._group = group
        self._before = {number: signal.getsignal(number) for number in _SIGNALS}

    def agreed(self) -> int:
        """The signal that ends the run here on every rank; 0 to go on. To be called once a step, by all ranks."""
        if self._group is None:
            return self._received
        answer = 0
        if self._pending is not None:
            reduced, running = self._pending
            running.wait()
            answer = int(reduced.item())
        flag = torch.tensor([self._received])
        work = dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self._group, async_op=True)
        assert work is not None
        self._pending = (flag, work)
        return answer

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._pending is not None and error is None:
            self._pending[1].wait()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = number
