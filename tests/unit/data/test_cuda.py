"""CUDA streams wait for each other, and memory is not reused too early. No GPU is needed."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from tests.support.given_batches import GivenBatches, batch_of, random_images
from torch import Tensor

from prolip.data.cuda import CudaTransfer
from prolip.data.device import DeviceBatches, Normalise
from prolip.images.tensors import OPENAI_MEAN, OPENAI_STD

CPU = torch.device("cpu")


@dataclass
class _Stream:
    """A stream that writes down what it is to wait for, and which tensors it is to finish with."""

    name: str
    waits: list[object] = field(default_factory=list)
    uses: list[Tensor] = field(default_factory=list)

    def wait_stream(self, stream):
        self.waits.append(stream)

    def wait_event(self, event):
        self.waits.append(event)


class _Recorded:
    """A CUDA event that has passed."""

    def __init__(self, *, enable_timing):
        assert enable_timing
        self.stream = None

    def record(self, stream):
        self.stream = stream

    def query(self):
        return True

    def elapsed_time(self, later):
        return 0.0


def test_compute_and_copy_streams_wait_for_each_other(monkeypatch):
    compute, copy = _Stream("compute"), _Stream("copy")
    current = [compute]

    @contextmanager
    def on(stream):
        current.append(stream)
        yield
        current.pop()

    monkeypatch.setattr("torch.cuda.Stream", lambda device: copy)
    monkeypatch.setattr("torch.cuda.current_stream", lambda device: current[-1])
    monkeypatch.setattr("torch.cuda.stream", on)
    monkeypatch.setattr("torch.cuda.Event", _Recorded)
    monkeypatch.setattr(Tensor, "record_stream", lambda tensor, stream: stream.uses.append(tensor))
    monkeypatch.setattr(CudaTransfer, "pinned", lambda _, size: torch.empty(size, dtype=torch.uint8))
    expected = [batch_of(random_images(number), number) for number in range(3)]
    transfer = CudaTransfer(CPU)
    assert copy.waits == [compute], "the copy stream reads constants that the compute stream makes"
    for got in DeviceBatches(
        GivenBatches(expected), Normalise(OPENAI_MEAN, OPENAI_STD, torch.float32, CPU), transfer, 1
    ):
        (ready,) = compute.waits
        assert isinstance(ready, _Recorded)
        assert ready.stream is copy
        tensors = [got.images, got.token_ids, got.masked_token_ids, got.kept_patches]
        assert len(compute.uses) == 4
        assert all(one.data_ptr() == other.data_ptr() for one, other in zip(compute.uses, tensors, strict=True))
        compute.waits.clear()
        compute.uses.clear()
    assert copy.waits == [compute]
    assert copy.uses == []
