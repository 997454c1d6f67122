"""`python -m prolip.train`, in which rank 1 fails at a place: the first word. A file `failing` is written just before.

Nobody can leave the process group, as with NCCL while a rank is missing.
"""

import os
import sys
import time
from pathlib import Path

import torch.distributed as dist

from prolip.checkpoint.tensors import TensorShare
from prolip.data import DataError
from prolip.data.device import DeviceBatches
from prolip.train import loop

PLACES = {
    "step": (loop, "take_step", 5, RuntimeError("rank 1 broke")),
    "data": (DeviceBatches, "__next__", 5, DataError("rank 1 has no shard")),
    "saving": (TensorShare, "copy", 2, RuntimeError("rank 1 broke")),
}
"""Where: an object, its function, at which call it fails, and with what."""


def failing(call, last, error, note):
    count = 0

    def counted(*arguments, **settings):
        nonlocal count
        count += 1
        if count == last:
            note.touch()
            raise error
        return call(*arguments, **settings)

    return counted


if __name__ == "__main__":
    place, words = sys.argv[1], sys.argv[2:]
    dist.destroy_process_group = lambda: time.sleep(600)
    if os.environ["RANK"] == "1":
        where, name, last, error = PLACES[place]
        note = Path(words[words.index("--out") + 1]) / "failing"
        note.parent.mkdir(parents=True, exist_ok=True)
        setattr(where, name, failing(getattr(where, name), last, error, note))
    sys.exit(loop.main(words))
