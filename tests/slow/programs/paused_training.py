"""`python -m prolip.train`, in which one rank stops at a moment, so that a test can kill it exactly there.

The first two words are the moment and the rank, if any rank is to stop. At the moment the rank writes a file `paused`
into the run's folder; it goes on when there is a file `go`. No rank takes a step after step 8 before that.

Every step adds noise from torch's generator to the images. So a run ends with the same bits only if it goes on with the
same generators.
"""

import os
import sys
import time
from pathlib import Path

import torch

from prolip.checkpoint import saver, tensors
from prolip.inference.encoder import Encoder
from prolip.train import loop

EIGHTH = "step_000000008"
MOMENTS = {
    # The folder is locked, and no step was taken.
    "start": (loop, "new_model", lambda _: True),
    # The first validation, after step 8: some ranks may have embedded their part.
    "validation": (Encoder, "of_prolip", lambda _: True),
    # The checkpoint of step 8: this rank's tensors are in their file, and there is no manifest.
    "saving": (tensors, "record", lambda file: file.parent.name.startswith(EIGHTH)),
    # The checkpoint of step 8 is complete. The one before, which is not to be kept, is still there.
    "pruning": (saver, "prune", lambda folder: (folder / EIGHTH).exists()),
}
"""A moment is just before a function is called: its module or class, its name, and which first argument it has."""


def wait_for(file):
    while not file.exists():
        time.sleep(0.002)


def pausing(call, is_meant, folder):
    def paused(first, *more, **settings):
        if is_meant(first) and not (folder / "paused").exists():
            (folder / "paused").touch()
            wait_for(folder / "go")
        return call(first, *more, **settings)

    return paused


if __name__ == "__main__":
    moment, rank, words = sys.argv[1], sys.argv[2], sys.argv[3:]
    take_step = loop.take_step
    pauses = os.environ["RANK"] == rank

    def noisy_step(run, batch):
        if pauses and run.step == 8:
            wait_for(run.config.out / "go")
        return take_step(run, batch._replace(images=batch.images + 0.1 * torch.randn_like(batch.images)))

    loop.take_step = noisy_step
    if pauses:
        where, name, is_meant = MOMENTS[moment]
        setattr(where, name, pausing(getattr(where, name), is_meant, Path(words[words.index("--out") + 1])))
    sys.exit(loop.main(words))
