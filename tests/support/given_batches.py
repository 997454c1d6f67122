"""A stand-in for a loader that returns given batches."""

from types import SimpleNamespace

import numpy as np

from prolip.data import Batch, Cursor, PatchArrays


def random_images(number):
    """Three images drawn by `number`, uint8 [3, 6, 4, 3]."""
    return np.random.default_rng(number).integers(0, 256, (3, 6, 4, 3), dtype=np.uint8)


def random_patches(number):
    """Three images of 2, 4 and 6 patches of side 2, drawn by `number`."""
    grids = np.array([(2, 1), (2, 2), (2, 3)], np.int32)
    pixels = np.random.default_rng(number).integers(0, 256, (3, 6, 12), dtype=np.uint8)
    coords = np.stack([np.stack(np.divmod(np.arange(6), columns), 1) for _, columns in grids]).astype(np.int16)
    valid = np.arange(6) < grids.prod(1)[:, None]
    return PatchArrays(pixels * valid[..., None], coords * valid[..., None], grids, valid)


def batch_of(images, number):
    """A batch of these images, whose ids, patches and keys are `number`."""
    rows = len(images.grids if isinstance(images, PatchArrays) else images)
    ids = np.full((2, rows, 5), number, dtype=np.int32)
    patches = np.full((1, 3), number, dtype=np.int64)
    keys = [f"{number}-{row}" for row in range(rows)]
    return Batch(
        images,
        ids,
        ids[:, :1].copy(),
        patches,
        np.arange(rows, dtype=np.uint32),
        np.zeros((rows, 2), np.int32),
        keys,
        {},
        Cursor(epoch=number),
    )


class GivenBatches:
    """A loader of given batches; `ready` of them are ready at first, and a failure may follow."""

    def __init__(self, batches, ready=100, failure=None):
        self.batches, self.ready, self.failure, self.taken = batches, ready, failure, 0

    def translated(self, table):
        assert table is None, "for a device beside the CPU only"
        for batch in self.batches:
            self.taken += 1
            yield batch
        if self.failure is not None:
            raise self.failure

    def stats(self):
        return SimpleNamespace(ready=min(self.ready, len(self.batches) + (self.failure is not None) - self.taken))
