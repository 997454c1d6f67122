"""A loader's batches on the device that trains: copied ahead beside its work, normalised there, and how long it waited.

Bytes cross, not floats: a quarter of the traffic. On a GPU each batch goes by way of one of a few page-locked buffers,
which are used again and again, in one copy on a stream of its own (`prolip.data.cuda`). On a CPU nothing is copied: the
pictures are normalised from the loader's memory into memory that a dropped batch gave back.

Shapes: B samples of a batch (this rank's), H/W pixels, C captions a sample, L tokens, M masked rows, K kept patches.
"""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prolip.data import OPENAI_MEAN, OPENAI_STD, Batch, Cursor, DataError, Members
from prolip.data.cuda import CudaTransfer, Mark, Transfer

__all__ = ["DeviceBatch", "DeviceBatches", "DeviceStats", "device_batches"]

_ALIGNMENT = 256
"""Bytes at whose multiples an array begins in a buffer: what CUDA aligns its own memory to."""
_SPARE_BATCHES = 2
"""Dropped batches' memory that is kept for others on a CPU: more cannot be missing at the same time in a plain loop."""
_CACHED_VALUES = 2**17
"""Pixel values that are normalised at a time on a CPU, as float32 well within a core's own cache."""


class DeviceBatch(NamedTuple):
    """A batch on a device, ready for the model. None where `Batch` has None."""

    images: Tensor
    """[B, 3, H, W] of the type that was asked for, normalised; in memory, channels last."""
    token_ids: Tensor
    """int64 [C, B, L]."""
    masked_token_ids: Tensor | None
    """int64 [C, M, L]."""
    kept_patches: Tensor | None
    """int64 [M, K]."""
    keys: list[str]
    """The samples' keys."""
    members: Members
    """The samples' members that are kept."""
    cursor: Cursor
    """Where a run goes on after this batch."""


@dataclass(frozen=True, kw_only=True)
class DeviceStats:
    """What the batches so far cost."""

    batches: int
    """Batches handed out."""
    seconds: float
    """From the first batch being asked for until the last was handed out."""
    wait_seconds: float
    """Of these, seconds in which the device had no batch to work on."""
    host_seconds: dict[str, float]
    """Seconds of this process by what it did: `loader`, waiting for the loader; `buffer`, waiting for a copy to leave
    its buffer; `fill`, writing into page-locked memory; `begin`, starting copies and kernels; `normalise` on a CPU."""

    @property
    def wait_share(self) -> float:
        """Share of the time that the device waited for data."""
        return self.wait_seconds / self.seconds if self.seconds > 0 else 0.0


class _Ready(Protocol):
    @property
    def ready(self) -> int: ...


class Source(Protocol):
    """What `DeviceBatches` needs of a loader."""

    def __iter__(self) -> Iterator[Batch]: ...
    def stats(self) -> _Ready:
        """Has `ready`: the batches that lie there already."""
        ...


class DeviceBatches:
    """An iterator over a loader's batches on a device; see `device_batches`."""

    def __init__(self, loader: Source, normalise: Normalise, transfer: Transfer | None, ahead: int):
        self._loader, self._normalise, self._transfer, self._ahead = loader, normalise, transfer, ahead
        self._batches = iter(loader)
        self._recycled = _Recycled()
        # One buffer more than there are copies under way, so that the next batch is written while they run.
        self._slots = deque(_Slot() for _ in range(ahead + 2))
        self._sent: deque[_Sent] = deque()
        self._waits: deque[tuple[Mark, Mark]] = deque()
        self._failure: Exception | None = None
        self._count, self._waited, self._host = 0, 0.0, dict.fromkeys(_STAGES[transfer is None], 0.0)
        self._first_asked = self._last_given = 0.0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> DeviceBatch:
        """The next batch.

        Raises:
            DataError, RuntimeError: what the loader raises, behind the batches before it.
        """
        self._first_asked = self._first_asked or time.perf_counter()
        given = self._from_memory() if self._transfer is None else self._from_queue(self._transfer)
        self._last_given = time.perf_counter()
        self._count += 1
        return given

    @property
    def wait_seconds(self) -> float:
        """Seconds in which the device had no batch to work on; on a GPU by its own clock, without the last few batches
        that it has not come to yet."""
        while self._waits and all(mark.passed() for mark in self._waits[0]):
            asked, ready = self._waits.popleft()
            self._waited += max(0.0, asked.seconds_until(ready))
        return self._waited

    def stats(self) -> DeviceStats:
        """What the batches so far cost."""
        return DeviceStats(
            batches=self._count,
            seconds=self._last_given - self._first_asked,
            wait_seconds=self.wait_seconds,
            host_seconds=dict(self._host),
        )

    # ---- a CPU: the loader's memory is the device's ----

    def _from_memory(self) -> DeviceBatch:
        batch = self._take()
        self._waited = self._host["loader"]
        with self._timed("normalise"):
            pixels = torch.from_numpy(batch.images)
            # New tensors throughout: the arrays' memory is the loader's.
            arrays = [None if array is None else torch.from_numpy(array) for array in _ids(batch)]
            ids = [None if array is None else array.to(torch.int64, copy=True) for array in arrays]
            return _device_batch(batch, self._normalise.on_cpu(pixels, self._recycled), ids)

    # ---- a GPU: a queue of batches under way ----

    def _from_queue(self, transfer: Transfer) -> DeviceBatch:
        asked = transfer.mark()
        while self._wants_another():
            try:
                self._sent.append(self._send(transfer, self._take()))
            except (StopIteration, DataError, RuntimeError) as failure:
                self._failure = failure
        if not self._sent:
            assert self._failure is not None
            raise self._failure
        sent = self._sent.popleft()
        with self._timed("begin"):
            transfer.hand_over(sent.ready, sent.tensors)
        self._waits.append((asked, sent.ready))
        _ = self.wait_seconds  # so that marks do not pile up
        return sent.batch

    def _wants_another(self) -> bool:
        """Whether a batch is to be sent before one is handed out: one must be there, more are taken if they lie ready.

        To wait for the loader while a batch stands on the device would make the device wait too.
        """
        if self._failure is not None or len(self._sent) > self._ahead:
            return False
        return not self._sent or self._loader.stats().ready > 0

    def _send(self, transfer: Transfer, batch: Batch) -> _Sent:
        arrays = [batch.images, *(array for array in _ids(batch) if array is not None)]
        starts, size = _layout(arrays)
        slot = self._slots[0]
        self._slots.rotate(-1)
        if slot.sent is not None and not slot.sent.passed():
            with self._timed("buffer"):
                slot.sent.wait()
        with self._timed("fill"):
            if slot.memory is None or len(slot.memory) < size:
                slot.memory = transfer.pinned(size)
            for start, array in zip(starts, arrays, strict=True):
                slot.memory[start : start + array.nbytes].copy_(_bytes(torch.from_numpy(array)))
        with self._timed("begin"), transfer.copying():
            packed = transfer.send(slot.memory[:size])
            slot.sent = transfer.mark()
            pixels, *rest = (_view(packed, start, array) for start, array in zip(starts, arrays, strict=True))
            images = self._normalise.on_device(pixels)
            # Copies even where the type is the same already: `packed` belongs to the copying stream alone.
            there = iter([tensor.to(torch.int64, copy=True) for tensor in rest])
            ids = [None if array is None else next(there) for array in _ids(batch)]
            ready = transfer.mark()
        tensors = [images, *(tensor for tensor in ids if tensor is not None)]
        return _Sent(_device_batch(batch, images, ids), tensors, ready)

    # ---- both ----

    def _take(self) -> Batch:
        with self._timed("loader"):
            return next(self._batches)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._host[stage] += time.perf_counter() - begun


_STAGES = {True: ("loader", "normalise"), False: ("loader", "buffer", "fill", "begin")}
"""The stages of `DeviceStats.host_seconds` where the device is the host, and where it is not."""


class _Slot:
    """A page-locked buffer, and the mark behind which it may be written again."""

    def __init__(self) -> None:
        self.memory: Tensor | None = None
        self.sent: Mark | None = None


class _Sent(NamedTuple):
    """A batch under way to the device."""

    batch: DeviceBatch
    tensors: list[Tensor]
    """What `batch` holds on the device."""
    ready: Mark
    """The mark behind which they hold what they should."""


class Normalise:
    """Pixels u8 [B, H, W, 3] to `(pixels / 255 - mean) / std` of a type, [B, 3, H, W] with channels last.

    That is one multiplication and one addition a value, in float32 whatever the type, and rounded once.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype, device: torch.device):
        self._scale = torch.tensor([1 / (255 * value) for value in std], dtype=torch.float32, device=device)
        self._bias = torch.tensor(
            [-middle / value for middle, value in zip(mean, std, strict=True)], dtype=torch.float32, device=device
        )
        self._dtype = dtype

    def on_device(self, pixels: Tensor) -> Tensor:
        """New memory, written by one kernel that reads the bytes."""
        out = torch.empty(pixels.shape, dtype=self._dtype, device=pixels.device)
        return torch.addcmul(self._bias, pixels, self._scale, out=out).permute(0, 3, 1, 2)

    def on_cpu(self, pixels: Tensor, memory: _Recycled) -> Tensor:
        """Recycled memory: fresh pages cost more than the arithmetic.

        torch would convert bytes to floats in strides of three, the channels of a pixel: ten times as slow as these
        long rows, a few pictures at a time so that the conversion stays in the cache.
        """
        batch, height, width, _ = pixels.shape
        rows = pixels.reshape(batch, -1)
        out = memory.take(rows.numel() * self._dtype.itemsize).view(self._dtype).view(rows.shape)
        scale, bias = (row.repeat(height * width) for row in (self._scale, self._bias))
        step = max(1, _CACHED_VALUES // max(1, rows.shape[1]))
        floats = torch.empty(step, rows.shape[1])
        for start in range(0, batch, step):
            some = out[start : start + step]
            work = some if self._dtype == torch.float32 else floats[: len(some)]
            work.copy_(rows[start : start + step])
            torch.addcmul(bias, work, scale, out=work)
            if work is not some:
                some.copy_(work)
        return out.view(batch, height, width, 3).permute(0, 3, 1, 2)


class _Recycled:
    """Memory of batches that were dropped. It comes back when the last tensor that looks at it has gone."""

    def __init__(self) -> None:
        self._spare: list[Tensor] = []

    def take(self, num_bytes: int) -> Tensor:
        """Memory that nobody looks at, u8 [num_bytes], of any content."""
        memory = None
        while memory is None or len(memory) != num_bytes:
            # One call each of pop and append, which nothing comes between: a tensor may be freed by any thread.
            try:
                memory = self._spare.pop()
            except IndexError:
                memory = torch.empty(num_bytes, dtype=torch.uint8)
        # The tensor's storage holds this array, every view of the tensor holds the storage.
        lent = memory.numpy()
        weakref.finalize(lent, self._give_back, memory).atexit = False
        return torch.from_numpy(lent)

    def _give_back(self, memory: Tensor) -> None:
        if len(self._spare) < _SPARE_BATCHES:
            self._spare.append(memory)


def _ids(batch: Batch) -> tuple[NDArray[np.int32], NDArray[np.int32] | None, NDArray[np.int64] | None]:
    return batch.token_ids, batch.masked_token_ids, batch.kept_patches


def _device_batch(batch: Batch, images: Tensor, ids: Sequence[Tensor | None]) -> DeviceBatch:
    token_ids, masked_token_ids, kept_patches = ids
    assert token_ids is not None
    return DeviceBatch(images, token_ids, masked_token_ids, kept_patches, batch.keys, batch.members, batch.cursor)


def _layout(arrays: Sequence[np.ndarray[tuple[int, ...], np.dtype[np.generic]]]) -> tuple[list[int], int]:
    """Where each array begins in a buffer that holds them all, and the buffer's size."""
    starts, end = [], 0
    for array in arrays:
        starts.append(end)
        end += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    return starts, end


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).view(torch.uint8)


def _view(packed: Tensor, start: int, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Tensor:
    """The array's place in a packed buffer, as a tensor of its type and shape."""
    dtype = torch.from_numpy(array).dtype
    return packed[start : start + array.nbytes].view(dtype).view(array.shape)


def device_batches(
    loader: Source,
    device: torch.device,
    *,
    dtype: torch.dtype = torch.float32,
    mean: tuple[float, float, float] = OPENAI_MEAN,
    std: tuple[float, float, float] = OPENAI_STD,
    ahead: int = 1,
) -> DeviceBatches:
    """The loader's batches on a device, pictures normalised there.

    Args:
        loader: The batches: a `BatchLoader`, or what gives its batches.
        device: Where they go: a CPU or a GPU.
        dtype: Of the pictures: float32, or bfloat16 where the model computes in it.
        mean: What is taken off red, green and blue, as shares of 255.
        std: What they are then divided by.
        ahead: Batches on a GPU beyond the one that is worked on, at least 1. A CPU copies nothing, so nothing ahead.

    Raises:
        ValueError: `ahead` is below 1, or a device or a type is of another kind.
    """
    if ahead < 1:
        raise ValueError(f"ahead is {ahead}: it must be at least 1")
    if dtype not in {torch.float32, torch.bfloat16, torch.float16}:
        raise ValueError(f"dtype is {dtype}: it must be float32, bfloat16 or float16")
    if device.type not in {"cpu", "cuda"}:
        raise ValueError(f"device is {device}: it must be a CPU or a CUDA device")
    transfer = CudaTransfer(device) if device.type == "cuda" else None
    return DeviceBatches(loader, Normalise(mean, std, dtype, device), transfer, ahead)
