"""Device batches against the loader's bytes while the device is busy.

Each batch is read late, after other work on the compute stream, and dropped without waiting. So a copy that the compute
stream does not wait for, or memory that is reused too early, changes a checksum.
"""

import time

import numpy as np
import torch
from tests.gpu.inputs import settings

from prolip.data import BatchLoader
from prolip.data.device import device_batches
from prolip.images.tensors import OPENAI_MEAN, OPENAI_STD

_BUSY, _EVERY, _SECONDS = 4096, 8, 0.04
"""Side of the matrix products that keep the device busy; every so many batches it gets work for so many seconds."""


class Summed:
    """A loader that notes a checksum of every batch that it returns."""

    def __init__(self, loader):
        self._loader = loader
        self.sums = []

    def translated(self, table):
        for batch in self._loader:
            arrays = (batch.images, batch.token_ids, batch.masked_token_ids, batch.kept_patches)
            found = [array for array in arrays if array is not None]
            # As the device will hold them: pixels as bytes, all else as 64-bit integers.
            wide = [array if array.dtype == np.uint8 else array.astype(np.int64) for array in found]
            self.sums.append(tuple(int(checksum(torch.from_numpy(array))) for array in wide))
            if table is None:
                yield batch
            else:
                assert isinstance(batch.images, np.ndarray)
                values = table[np.arange(3), batch.images]
                yield batch._replace(images=values.reshape(*batch.images.shape[:3], -1))

    def stats(self):
        return self._loader.stats()


def under_load(job):
    count, size, batch_size, most_seconds = (40, 32, 8, 10) if job.small else (4000, 96, 32, 30)
    flags = f"--model.vision.image_size {size} --batch_size {batch_size}".split()
    config = settings(job, "batches", *flags)
    with BatchLoader(config.loader(1)) as loader:
        source = Summed(loader)
        batches = device_batches(source, job.place)
        found = []
        keep_busy = work_for_a_while() if job.on_gpu else lambda: None
        started = time.perf_counter()
        while len(found) < count and time.perf_counter() - started < most_seconds:
            batch = next(batches)
            if len(found) % _EVERY == 0:
                keep_busy()
            tensors = (batch.images, batch.token_ids, batch.masked_token_ids, batch.kept_patches)
            del batch
            found.append(torch.stack([checksum(bytes_of(tensors[0])), *(checksum(one) for one in tensors[1:])]))
            del tensors
        sums = torch.stack(found).tolist()
        seconds = time.perf_counter() - started
    different = sum(tuple(one) != other for one, other in zip(sums, source.sums, strict=False))
    job.check(f"batches of {len(found)} that differ", different, 0, "pixels, tokens, masked tokens and kept patches")
    job.figure("batches compared", len(found), "", f"{batch_size} images of {size} pixels each, {seconds:.1f} s")


def work_for_a_while():
    """A function that queues matrix products of `_SECONDS` on the device."""
    left, right = (torch.randn(_BUSY, _BUSY, device="cuda") for _ in range(2))
    out = left @ right
    begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begun.record()
    torch.mm(left, right, out=out)
    ended.record()
    torch.cuda.synchronize()
    repeats = max(1, round(_SECONDS * 1000 / begun.elapsed_time(ended)))

    def work():
        for _ in range(repeats):
            torch.mm(left, right, out=out)

    return work


def bytes_of(images):
    """The loader's bytes [B, H, W, 3] of normalised images f32 [B, 3, H, W]."""
    pixels = images.permute(0, 2, 3, 1)
    mean, std = (torch.tensor(values, device=images.device) for values in (OPENAI_MEAN, OPENAI_STD))
    return ((pixels * std + mean) * 255).round_().to(torch.uint8)


def checksum(values):
    """A sum of 64-bit words with a different odd weight each, so that it changes with any word and with their order."""
    flat = values.contiguous().flatten()
    if flat.dtype == torch.uint8:
        flat = torch.nn.functional.pad(flat, (0, -len(flat) % 8)).view(torch.int64)
    return (flat * torch.arange(1, 2 * len(flat), 2, device=flat.device)).sum()
