"""`device_batches`: copy the loader's batches to a device ahead of time, and normalise the images there.

On a GPU the bytes of each batch, a quarter of its floats, are sent from a recycled page-locked buffer in one copy on a
separate stream (`prolip.data.cuda`). For a CPU the loader's threads normalise while they fill a batch, in the loader's
memory; a thread of torch would wait busily beside them.

Shapes: B samples per batch (on this rank), H/W pixels, C caption slots, L tokens, M masked rows, K kept patches.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prolip.data import Batch, Cursor, DataError, Members, PatchArrays
from prolip.data.cuda import CudaEvent, CudaTransfer
from prolip.images.tensors import OPENAI_MEAN, OPENAI_STD, Normalise, Patches

__all__ = ["DeviceBatch", "DeviceBatches", "DeviceStats", "device_batches"]

_ALIGNMENT = 256
"""Of each array in a buffer, in bytes, as CUDA's own."""


class DeviceBatch(NamedTuple):
    """Ready for the model. Fields are None where those of `Batch` are."""

    images: Tensor | Patches
    """[B, 3, H, W], normalised, in the requested dtype and channels-last memory format. From a native loader, patches
    in this dtype, with coords int16, grids int64 and valid bool."""
    token_ids: Tensor
    """int64 [C, B, L]."""
    masked_token_ids: Tensor | None
    """int64 [C, M, L]."""
    kept_patches: Tensor | None
    """int64 [M, K]."""
    rows: NDArray[np.uint32]
    sizes: NDArray[np.int32]
    keys: list[str]
    members: Members
    cursor: Cursor
    """See `Batch`."""


@dataclass(frozen=True, kw_only=True)
class DeviceStats:
    """Where the time went, over all batches so far."""

    batches: int
    seconds: float
    """From the first request until the last batch was returned."""
    wait_seconds: float
    """The part in which the device had no batch."""

    @property
    def wait_share(self) -> float:
        """Share of the time, in [0, 1]."""
        return self.wait_seconds / self.seconds if self.seconds > 0 else 0.0


class _Ready(Protocol):
    @property
    def ready(self) -> int: ...


class Source(Protocol):
    """What `DeviceBatches` needs from a loader."""

    def translated(self, table: NDArray[np.uint8] | None) -> Iterator[Batch]:
        """As `BatchLoader.translated`."""
        ...

    def stats(self) -> _Ready:
        """`ready` is the number of finished batches in the queue."""
        ...


class DeviceBatches:
    """Made by `device_batches`."""

    def __init__(self, loader: Source, normalise: Normalise, transfer: CudaTransfer | None, ahead: int):
        self._loader, self._normalise, self._transfer, self._ahead = loader, normalise, transfer, ahead
        self._batches = loader.translated(normalise.table() if transfer is None else None)
        # One more than copies in flight, so that the next can be filled while they run.
        self._slots = deque(_Slot() for _ in range(ahead + 2))
        self._in_flight: deque[_InFlight] = deque()
        self._waits: deque[tuple[CudaEvent, CudaEvent]] = deque()
        self._failure: Exception | None = None
        self._count, self._waited = 0, 0.0
        self._first_request = self._last_return = 0.0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> DeviceBatch:
        """Errors of the loader come after the batches before them."""
        self._first_request = self._first_request or time.perf_counter()
        batch = self._next_on_cpu() if self._transfer is None else self._next_on_gpu(self._transfer)
        self._last_return = time.perf_counter()
        self._count += 1
        return batch

    @property
    def wait_seconds(self) -> float:
        """Seconds without a batch; on a GPU by its own clock, without the last few batches."""
        while self._waits and all(event.passed() for event in self._waits[0]):
            requested, ready = self._waits.popleft()
            self._waited += max(0.0, requested.seconds_until(ready))
        return self._waited

    def stats(self) -> DeviceStats:
        """So far."""
        seconds = self._last_return - self._first_request
        return DeviceStats(batches=self._count, seconds=seconds, wait_seconds=self.wait_seconds)

    # ---- CPU: images in the loader's memory ----

    def _next_on_cpu(self) -> DeviceBatch:
        requested = time.perf_counter()
        batch = next(self._batches)
        self._waited += time.perf_counter() - requested
        pixels, *rest = (None if array is None else torch.from_numpy(array) for array in _arrays(batch))
        assert pixels is not None
        return _device_batch(batch, pixels.view(self._normalise.dtype), rest)

    # ---- GPU: a queue of batches in flight ----

    def _next_on_gpu(self, transfer: CudaTransfer) -> DeviceBatch:
        requested = transfer.record()
        while self._should_send():
            try:
                self._in_flight.append(self._send(transfer, next(self._batches)))
            except (StopIteration, DataError, RuntimeError) as failure:
                self._failure = failure
        if not self._in_flight:
            assert self._failure is not None
            raise self._failure
        first = self._in_flight.popleft()
        transfer.hand_over(first.ready, first.tensors)
        self._waits.append((requested, first.ready))
        _ = self.wait_seconds  # release events that have passed
        return first.batch

    def _should_send(self) -> bool:
        """Always if none is in flight, else only if the loader has one ready.

        Waiting for the loader while a batch is on the device would make the device wait too.
        """
        if self._failure is not None or len(self._in_flight) > self._ahead:
            return False
        return not self._in_flight or self._loader.stats().ready > 0

    def _send(self, transfer: CudaTransfer, batch: Batch) -> _InFlight:
        fields = _arrays(batch)
        arrays = [array for array in fields if array is not None]
        starts, size = _layout(arrays)
        slot = self._slots[0]
        self._slots.rotate(-1)
        if slot.sent is not None and not slot.sent.passed():
            slot.sent.wait()
        if slot.memory is None or len(slot.memory) < size:
            slot.memory = transfer.pinned(size)
        for start, array in zip(starts, arrays, strict=True):
            flat = torch.from_numpy(array).reshape(-1).view(torch.uint8)
            slot.memory[start : start + array.nbytes].copy_(flat)
        with transfer.copying():
            sent = transfer.send(slot.memory[:size])
            slot.sent = transfer.record()
            pixels, *rest = (_view(sent, start, array) for start, array in zip(starts, arrays, strict=True))
            # Copies, as `sent` stays on the copy stream.
            tensors = [self._normalise(pixels), *(tensor.clone() for tensor in rest)]
            ready = transfer.record()
        there = iter(tensors[1:])
        moved = [None if array is None else next(there) for array in fields[1:]]
        return _InFlight(_device_batch(batch, tensors[0], moved), tensors, ready)


class _Slot:
    """A page-locked buffer, which may be overwritten after `sent`."""

    def __init__(self) -> None:
        self.memory: Tensor | None = None
        self.sent: CudaEvent | None = None


class _InFlight(NamedTuple):
    batch: DeviceBatch
    tensors: list[Tensor]
    ready: CudaEvent
    """When the tensors are valid."""


def _arrays(batch: Batch) -> list[NDArray[Any] | None]:
    """Pixels, the rest of `PatchArrays`, and ids, in the dtypes of `DeviceBatch`."""
    images = batch.images if isinstance(batch.images, PatchArrays) else (batch.images, None, None, None)
    pixels, coords, grids, valid = images
    integers = (grids, batch.token_ids, batch.masked_token_ids, batch.kept_patches)
    # By NumPy: for a large array torch would wake its threads.
    wide_grids, *ids = (None if array is None else array.astype(np.int64) for array in integers)
    return [pixels, coords, wide_grids, valid, *ids]


def _device_batch(batch: Batch, pixels: Tensor, rest: Sequence[Tensor | None]) -> DeviceBatch:
    coords, grids, valid, token_ids, masked_token_ids, kept_patches = rest
    assert token_ids is not None
    images: Tensor | Patches
    if coords is None or grids is None or valid is None:
        images = pixels.permute(0, 3, 1, 2)
    else:
        images = Patches(pixels, coords, grids, valid)
    return DeviceBatch(images, token_ids, masked_token_ids, kept_patches, *batch[4:])


def _layout(arrays: Sequence[NDArray[Any]]) -> tuple[list[int], int]:
    starts, end = [], 0
    for array in arrays:
        starts.append(end)
        end += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    return starts, end


def _view(sent: Tensor, start: int, array: NDArray[Any]) -> Tensor:
    dtype = torch.from_numpy(array).dtype
    return sent[start : start + array.nbytes].view(dtype).view(array.shape)


def device_batches(
    loader: Source,
    device: torch.device,
    *,
    dtype: torch.dtype = torch.float32,
    mean: tuple[float, float, float] = OPENAI_MEAN,
    std: tuple[float, float, float] = OPENAI_STD,
    ahead: int = 1,
) -> DeviceBatches:
    """Iterate over a loader's batches on a device, with normalised images.

    Args:
        dtype: of the images: float32, bfloat16 or float16.
        ahead: batches to copy to a GPU ahead of the current one, at least 1.

    """
    assert ahead >= 1
    transfer = CudaTransfer(device) if device.type == "cuda" else None
    return DeviceBatches(loader, Normalise(mean, std, dtype, device), transfer, ahead)
