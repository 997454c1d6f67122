"""`python -m prolip.train`, in which one rank stops at a moment, so that a test can kill it exactly there.

The first two words are the moment and the rank. At the moment the rank writes a file `paused` into the run's folder; it
goes on when there is a file `go`. No rank takes a step after step 8 before that.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prolip.checkpoint import saver, tensors
from prolip.data.device import DeviceBatch
from prolip.train import loop, validation

MOMENTS: dict[str, tuple[Any, str, int]] = {
    # The folder is locked, and no step was taken.
    "start": (loop, "new_model", 1),
    # The first validation, after step 8: some ranks may have embedded their part.
    "validation": (validation, "embed_pairs", 1),
    # The second checkpoint, after step 8: this rank's tensors are in their file, and there is no manifest.
    "saving": (tensors, "record", 2),
    # The second checkpoint is complete. The first one, which is not to be kept, is still there.
    "pruning": (saver, "prune", 2),
}
"""A moment is just before a function is called: its module, its name, and the number of the call."""


def wait_for(file: Path) -> None:
    while not file.exists():
        time.sleep(0.002)


def pausing(call: Callable[..., Any], number: int, folder: Path) -> Callable[..., Any]:
    numbers = itertools.count(1)

    def paused(*arguments: Any, **settings: Any) -> Any:
        if next(numbers) == number:
            (folder / "paused").touch()
            wait_for(folder / "go")
        return call(*arguments, **settings)

    return paused


if __name__ == "__main__":
    moment, rank, words = sys.argv[1], sys.argv[2], sys.argv[3:]
    take_step = loop.take_step

    def held_step(run: loop.Run, batch: DeviceBatch) -> Any:
        if run.step == 8:
            wait_for(run.config.out / "go")
        return take_step(run, batch)

    if os.environ["RANK"] == rank:
        where, name, number = MOMENTS[moment]
        setattr(where, name, pausing(getattr(where, name), number, Path(words[words.index("--out") + 1])))
        loop.take_step = held_step
    sys.exit(loop.main(words))
