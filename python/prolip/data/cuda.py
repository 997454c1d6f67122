"""Copies from page-locked memory to a GPU, on a stream beside that of the computation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


class CudaTransfer:
    """One GPU's stream of copies."""

    def __init__(self, device: torch.device):
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        # Work queued before, such as constants that the copy stream reads, must finish first.
        self._stream.wait_stream(torch.cuda.current_stream(device))

    def pinned(self, num_bytes: int) -> Tensor:
        """Page-locked host memory, u8 [num_bytes]."""
        return torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)

    @contextmanager
    def copying(self) -> Iterator[None]:
        """Queue work on the copy stream."""
        with torch.cuda.stream(self._stream):
            yield

    def send(self, host: Tensor) -> Tensor:
        """Start to copy page-locked memory; overwrite it only after a later event has passed."""
        return host.to(self._device, non_blocking=True)

    def record(self) -> CudaEvent:
        """After the work queued so far on the current stream."""
        return CudaEvent(torch.cuda.current_stream(self._device))

    def hand_over(self, ready: CudaEvent, tensors: Sequence[Tensor]) -> None:
        """Make the compute stream wait for an event, and keep the tensors' memory until it is done."""
        compute = torch.cuda.current_stream(self._device)
        compute.wait_event(ready.event)
        for tensor in tensors:
            tensor.record_stream(compute)


class CudaEvent:
    """A point in a stream."""

    def __init__(self, stream: torch.cuda.Stream):
        self.event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        self.event.record(stream)

    def passed(self) -> bool:
        """Whether the device has reached this point."""
        return bool(self.event.query())  # type: ignore[no-untyped-call]

    def wait(self) -> None:
        """Block until the device has reached this point."""
        self.event.synchronize()

    def seconds_until(self, later: CudaEvent) -> float:
        """On the device. Both must have passed."""
        return float(self.event.elapsed_time(later.event)) / 1000
