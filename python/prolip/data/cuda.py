"""The few operations by which memory crosses to a GPU beside its work. Tests put another in their place.

Two queues of work run on the device beside each other: the one that computes, and one that copies. A mark is a point
in such a queue.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, Self

import torch
from torch import Tensor


class Mark(Protocol):
    """A point in a queue of the device's work."""

    def passed(self) -> bool:
        """Whether the device has come to it."""
        ...

    def wait(self) -> None:
        """Returns when it has."""
        ...

    def seconds_until(self, later: Self) -> float:
        """Seconds from the device's passing of this mark to its passing of another; both have been passed."""
        ...


class Transfer(Protocol):
    """A device that is fed from page-locked memory."""

    def pinned(self, num_bytes: int) -> Tensor:
        """Page-locked memory of the host, u8 [num_bytes]."""
        ...

    def copying(self) -> AbstractContextManager[None]:
        """Work that is begun within goes to the copying queue."""
        ...

    def send(self, host: Tensor) -> Tensor:
        """Begins to copy page-locked memory to the device; it must not be written before a mark behind it is passed."""
        ...

    def mark(self) -> Mark:
        """A mark behind the work that was begun so far in the present queue."""
        ...

    def hand_over(self, ready: Mark, tensors: Sequence[Tensor]) -> None:
        """Makes the computing queue wait for a mark of the copying one, and keeps the tensors' memory, even if they are
        dropped, until the computing queue is through with what was begun on them."""
        ...


class CudaTransfer:
    """`Transfer` by CUDA's streams and events."""

    def __init__(self, device: torch.device):
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        # What was begun before, such as the constants that the copying queue reads, comes before all of its work.
        self._stream.wait_stream(torch.cuda.current_stream(device))

    def pinned(self, num_bytes: int) -> Tensor:
        """See `Transfer`."""
        return torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)

    @contextmanager
    def copying(self) -> Iterator[None]:
        """See `Transfer`."""
        with torch.cuda.stream(self._stream):
            yield

    def send(self, host: Tensor) -> Tensor:
        """See `Transfer`."""
        return host.to(self._device, non_blocking=True)

    def mark(self) -> CudaMark:
        """See `Transfer`."""
        return CudaMark(torch.cuda.current_stream(self._device))

    def hand_over(self, ready: Mark, tensors: Sequence[Tensor]) -> None:
        """See `Transfer`."""
        assert isinstance(ready, CudaMark)
        computing = torch.cuda.current_stream(self._device)
        computing.wait_event(ready.event)
        for tensor in tensors:
            tensor.record_stream(computing)


class CudaMark:
    """`Mark` by an event."""

    def __init__(self, stream: torch.cuda.Stream):
        self.event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        self.event.record(stream)

    def passed(self) -> bool:
        """See `Mark`."""
        return bool(self.event.query())  # type: ignore[no-untyped-call]

    def wait(self) -> None:
        """See `Mark`."""
        self.event.synchronize()

    def seconds_until(self, later: CudaMark) -> float:
        """See `Mark`."""
        return float(self.event.elapsed_time(later.event)) / 1000
