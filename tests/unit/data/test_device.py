"""Batches on a device: what they hold, in which order buffers are written and copied, what waiting is counted.

No GPU is needed: a transfer that writes down what it is asked, and takes its time, stands in its place.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from PIL import Image
from tests.support.given_batches import GivenBatches, batch_of, random_images, random_patches
from tests.support.images import encode
from tests.support.shards import FULL, config, write_tar
from torch import Tensor

from prolip.data import AugmentConfig, BatchLoader, DataError, NativeConfig, PatchArrays
from prolip.data.device import DeviceBatches, Normalise, device_batches
from prolip.images.tensors import OPENAI_MEAN, OPENAI_STD, Patches

CPU = torch.device("cpu")


def expect(got, batch, atol=1e-5):
    ids = [getattr(batch, name) for name in ("token_ids", "masked_token_ids", "kept_patches")]
    expected = list(zip(got[1:4], ids, [torch.int64] * 3, strict=True))
    if isinstance(got.images, Patches):
        assert isinstance(batch.images, PatchArrays)
        (found, *rest), (values, *arrays) = got.images, batch.images
        assert found.isfinite().all()
        found, values = found[batch.images.patch_valid], values[batch.images.patch_valid]
        expected += zip(rest, arrays, (torch.int16, torch.int64, torch.bool), strict=True)
    else:
        assert got.images.is_contiguous(memory_format=torch.channels_last)
        assert isinstance(batch.images, np.ndarray)
        found, values = got.images.permute(0, 2, 3, 1), batch.images
    pixels = (values.reshape(-1, 3) / 255 - np.array(OPENAI_MEAN)) / np.array(OPENAI_STD)
    np.testing.assert_allclose(found.float().cpu().numpy(), pixels.reshape(values.shape), atol=atol)
    for tensor, array, dtype in expected:
        assert (tensor is None) == (array is None)
        if tensor is not None:
            assert tensor.dtype == dtype
            assert tensor.tolist() == array.tolist()
    assert (got.keys, got.members, got.cursor) == (batch.keys, batch.members, batch.cursor)


def native_batches():
    """Two batches, the second without masked rows."""
    masked, whole = (batch_of(random_patches(number), number) for number in range(2))
    return [masked, whole._replace(masked_token_ids=None, kept_patches=None)]


# ---- a CPU ----------------------------------------------------------------------------------------------------------


def test_device_batches_are_normalised_copies(shards):
    loader = BatchLoader(config(shards, **FULL))
    expected = list(loader)
    batches = device_batches(loader, CPU)
    got = list(batches)
    assert len(got) == len(expected) == 8
    for ours, batch in zip(got, expected, strict=True):
        assert isinstance(ours.images, Tensor)
        assert ours.images.dtype == torch.float32
        expect(ours, batch)
    stats = batches.stats()
    assert stats.batches == 8
    assert 0 < batches.wait_seconds == stats.wait_seconds < stats.seconds
    assert 0 < stats.wait_share < 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_loaders_threads_normalise_as_torch_does_bit_for_bit(shards, tmp_path, dtype):
    """Resumed too, and in batches that a bad sample leaves smaller; the values are rounded to the dtype once."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    write_tar(tmp_path / "more.tar", [("bad.png", b"no image"), ("good.png", encode(noise, "png"))])
    settings = config(
        shards,
        shards=(shards, str(tmp_path / "more.tar")),
        image_size=32,
        captions=(),
        augment=AugmentConfig(crop_scale=(0.9, 1)),
        num_epochs=2,
        last_batch="keep",
        max_bad_fraction=1,
    )
    expected = list(BatchLoader(settings))
    assert 3 in [len(batch.keys) for batch in expected]
    scale, bias = (
        torch.tensor(values)
        for values in zip(*((1 / (255 * s), -m / s) for m, s in zip(OPENAI_MEAN, OPENAI_STD, strict=True)), strict=True)
    )
    for stop in (0, 3, 6):
        loader = BatchLoader(settings, resume=expected[stop - 1].cursor if stop else None)
        got = list(device_batches(loader, CPU, dtype=dtype))
        for ours, batch in zip(got, expected[stop:], strict=True):
            assert isinstance(ours.images, Tensor)
            assert isinstance(batch.images, np.ndarray)
            pixels = torch.from_numpy(batch.images).float()
            assert torch.equal(ours.images.permute(0, 2, 3, 1), torch.addcmul(bias, pixels, scale).to(dtype))
            assert ours.keys == batch.keys


def test_the_loaders_threads_normalise_patches(shards):
    native = NativeConfig(patch_size=8, seq_lens=(7, 12), token_budget=56, batch_divisor=2)
    for dtype, atol in ((torch.float32, 1e-5), (torch.bfloat16, 0.02)):
        loader = BatchLoader(config(shards, **FULL, native=native))
        expected = list(loader)
        assert expected
        for got, batch in zip(device_batches(loader, CPU, dtype=dtype), expected, strict=True):
            assert isinstance(got.images, Patches)
            assert got.images.patches.dtype == dtype
            expect(got, batch, atol)


# ---- a device beside the host ---------------------------------------------------------------------------------------


@dataclass
class _Event:
    """Passed when it is waited for; then the copies before it must still find what they were to copy."""

    device: _Device
    number: int
    at: float = 0.0
    done: bool = False
    waited: int = field(default=0)

    def passed(self):
        return self.done

    def wait(self):
        self.device.log.append(f"wait {self.number}")
        self.device.finish(self.number)

    def seconds_until(self, later):
        return later.at - self.at


class _Device:
    """A device on which nothing ends before somebody waits for it."""

    def __init__(self):
        self.log = []
        self.events = []
        self.copies = []
        self.buffers = []
        self.inside = False
        self.clock = 0.0

    def pinned(self, num_bytes):
        self.buffers.append(torch.zeros(num_bytes, dtype=torch.uint8))
        self.log.append("pinned")
        return self.buffers[-1]

    @contextmanager
    def copying(self):
        self.inside = True
        yield
        self.inside = False

    def send(self, host):
        assert self.inside
        assert any(host.data_ptr() == buffer.data_ptr() for buffer in self.buffers)
        self.log.append("send")
        self.copies.append((len(self.events), host, host.clone()))
        return self.copies[-1][2].clone()

    def record(self):
        event = _Event(self, len(self.events), self.clock)
        self.events.append(event)
        self.log.append(f"{'copying' if self.inside else 'computing'} {event.number}")
        return event

    def hand_over(self, ready, tensors):
        assert not self.inside
        self.log.append(f"hand over {ready.number}")
        assert all(tensor.numel() for tensor in tensors)

    def finish(self, number):
        """The device reaches an event: everything before it is done."""
        for begun, host, content in self.copies:
            if begun <= number:
                assert torch.equal(host, content), "a buffer was written before its copy had ended"
        self.copies = [copy for copy in self.copies if copy[0] > number]
        for event in self.events[: number + 1]:
            event.done = True


def _over(given, ahead=1, dtype=torch.float32):
    device = _Device()
    return DeviceBatches(given, Normalise(OPENAI_MEAN, OPENAI_STD, dtype, CPU), device, ahead), device


@pytest.mark.parametrize("ahead", [1, 3])
def test_batches_are_intact_and_in_order_when_buffers_are_reused(ahead):
    expected = [*native_batches(), *(batch_of(random_images(number), number) for number in range(10))]
    batches, device = _over(GivenBatches(expected), ahead)
    for got, batch in zip(batches, expected, strict=True):
        expect(got, batch)
    assert len(device.buffers) == ahead + 2
    assert sum(line.startswith("wait") for line in device.log) >= 12 - (ahead + 2) - 1
    device.finish(len(device.events) - 1)


def test_the_next_batch_is_copied_while_one_is_computed():
    given = GivenBatches([batch_of(random_images(number), number) for number in range(5)])
    batches, device = _over(given)
    next(batches)
    # The second copy is begun before the first batch is handed out, on the copy stream, each before an event.
    assert device.log == [
        "computing 0",
        *("pinned", "send", "copying 1", "copying 2"),
        *("pinned", "send", "copying 3", "copying 4"),
        "hand over 2",
    ]
    device.log.clear()
    next(batches)
    assert device.log == ["computing 5", "pinned", "send", "copying 6", "copying 7", "hand over 4"]
    assert given.taken == 3


def test_a_buffer_is_reused_only_after_its_copy_is_done():
    batches, device = _over(GivenBatches([batch_of(random_images(number), number) for number in range(6)]))
    for _ in range(2):
        next(batches)
    device.log.clear()
    next(batches)  # sends the fourth batch, by way of the first buffer
    assert device.log[:3] == ["computing 8", "wait 1", "send"]
    device.finish(len(device.events) - 1)
    device.log.clear()
    next(batches)
    assert not any(line.startswith("wait") for line in device.log), "a copy that has ended is not waited for"


def test_a_batch_on_the_device_is_returned_without_waiting_for_the_loader():
    given = GivenBatches([batch_of(random_images(number), number) for number in range(5)])
    batches, _ = _over(given)
    next(batches)
    assert given.taken == 2
    given.ready = 0
    next(batches)
    assert given.taken == 2, "the loader has nothing ready: the batch that stands there is handed out"
    next(batches)
    assert given.taken == 3, "none is left: the loader is waited for"


@pytest.mark.parametrize("failure", [DataError("000.tar: damaged"), RuntimeError("the loader was closed")])
def test_a_loader_failure_is_raised_after_the_batches_before_it(failure):
    batches, _ = _over(
        GivenBatches([batch_of(random_images(number), number) for number in range(3)], failure=failure), ahead=2
    )
    assert [next(batches).cursor.epoch for _ in range(3)] == [0, 1, 2]
    with pytest.raises(type(failure), match=str(failure)):
        next(batches)


def test_wait_time_is_measured_by_the_devices_events():
    given = GivenBatches([batch_of(random_images(number), number) for number in range(4)], ready=0)
    batches, device = _over(given)
    for number, late in enumerate((0.5, 0.0, 0.25)):
        device.clock = float(number)
        ordinary = device.send

        def send(host, late=late, ordinary=ordinary):
            device.clock += late  # the copy ends so much later than the device had nothing left to do
            return ordinary(host)

        device.send = send
        next(batches)
        device.send = ordinary
    assert batches.wait_seconds == 0, "the device has reached none of its events yet"
    device.finish(len(device.events) - 1)
    assert batches.wait_seconds == pytest.approx(0.75)
    stats = batches.stats()
    assert stats.batches == 3
    assert stats.wait_share == pytest.approx(0.75 / stats.seconds)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_batches_on_a_gpu_equal_those_on_the_cpu(shards, dtype):
    loader = BatchLoader(config(shards, **FULL))
    batches = device_batches(loader, torch.device("cuda"), dtype=dtype, ahead=2)
    for got, batch in zip(batches, list(loader), strict=True):
        torch.mm(torch.randn(2048, 2048, device="cuda"), torch.randn(2048, 2048, device="cuda"))
        expect(got, batch, 1e-5 if dtype == torch.float32 else 0.02)
    torch.cuda.synchronize()
    assert batches.wait_seconds >= 0
