"""Measure one contender in its own process: read a task from standard input, write a measurement to standard output.

It measures the rate of an endless stream. The first batches are dropped (start-up, caches). Then a whole number of
batches per worker is timed, so that pipelines with several workers start and stop the clock in the same phase. The
consumer reads one pixel of each batch.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prolip.bench import proc_stats
from prolip.bench.task import Measurement, Task
from prolip.data import AugmentConfig, BatchLoader, LoaderConfig, decode_only
from prolip.data.config import TokenizerConfig
from prolip.data.device import device_batches
from prolip.errors import UserError

WARM_BATCHES = 2
"""Smallest number of batches to drop; one per worker if there are more workers."""


Images = Tensor | NDArray[np.uint8]
"""The images of a batch, batch dimension first."""


def main() -> int:
    """Measure the task on standard input; returns the exit status, 2 for wrong settings."""
    task = Task.from_json(sys.stdin.read())
    try:
        measured = CONTENDERS[task.contender](task)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{measured.to_json()}\n")
    sys.stdout.flush()
    return 0


def _prolip(task: Task) -> Measurement:
    """Measure the loader: uint8 batches as in training, where the device normalises them."""
    loaders: list[BatchLoader] = []

    def start() -> Iterator[Images]:
        loaders.append(BatchLoader(_loader_config(task)))
        for batch in loaders[0]:
            yield batch.images

    measured = _measure(task, start)
    stages = loaders[0].stats().stages
    # Stage clocks also run while a thread waits for a core, so only their shares of the CPU time are used.
    waiting = {"wait", "idle", "fetch"}
    busy = {name: stage.seconds for name, stage in stages.items() if name not in waiting and stage.count}
    whole = sum(busy.values())
    return replace(measured, stage_us={name: seconds / whole * measured.cpu_us for name, seconds in busy.items()})


def _prolip_float32(task: Task) -> Measurement:
    """Measure the loader with float32 batches like the baselines: the consumer normalises them on the CPU."""
    torch.set_num_threads(1)

    def start() -> Iterator[Images]:
        for batch in device_batches(BatchLoader(_loader_config(task)), torch.device("cpu")):
            yield batch.images

    return _measure(task, start)


def _decode_only(task: Task) -> Measurement:
    """Measure the floor: as many threads decode the same images from memory, and do nothing else."""
    import_mb = proc_stats.memory(proc_stats.tree()).peak_rss
    stopwatches = []

    def loaded() -> None:
        stopwatches.append(proc_stats.stopwatch())

    images, seconds = decode_only(list(task.shards), task.images, task.threads, loaded)
    took = stopwatches[0]()
    memory = proc_stats.memory(proc_stats.tree())
    return Measurement(
        images_per_s=images / seconds,
        cpu_us=took.cpu_seconds / images * 1e6,
        others_cores=took.others_cores,
        first_batch_s=0.0,
        rss_mb=memory.peak_rss,
        pss_mb=memory.pss,
        import_mb=import_mb,
    )


def _baseline(task: Task) -> Measurement:
    """A loader of `prolip.bench.baselines`, whose packages are not imported for the others."""
    from prolip.bench import baselines

    batches = {
        "webdataset": baselines.webdataset_batches,
        "hand-made": baselines.hand_made_batches,
        "hand-made-cv2": baselines.hand_made_cv2_batches,
    }[task.contender]
    return _measure(task, lambda: (images for images, _ in batches(task)))


CONTENDERS: dict[str, Callable[[Task], Measurement]] = {
    "prolip": _prolip,
    "prolip-float32": _prolip_float32,
    "decode-only": _decode_only,
    "webdataset": _baseline,
    "hand-made": _baseline,
    "hand-made-cv2": _baseline,
}


def _measure(task: Task, start: Callable[[], Iterator[Images]]) -> Measurement:
    """Time the batches of the loader that `start` opens."""
    warnings.simplefilter("ignore")
    workers = task.threads
    count = -(-task.images // (task.batch_size * workers)) * workers
    import_mb = proc_stats.memory(proc_stats.tree()).peak_rss
    opened = time.perf_counter()
    batches = start()
    _read_pixel(next(batches))
    first_batch = time.perf_counter() - opened
    for images in islice(batches, max(WARM_BATCHES, workers) - 1):
        _read_pixel(images)
    elapsed = proc_stats.stopwatch()
    for images in islice(batches, count):
        _read_pixel(images)
    took = elapsed()
    memory = proc_stats.memory(proc_stats.tree())
    timed = count * task.batch_size
    return Measurement(
        images_per_s=timed / took.seconds,
        cpu_us=took.cpu_seconds / timed * 1e6,
        others_cores=took.others_cores,
        first_batch_s=first_batch,
        rss_mb=memory.peak_rss,
        pss_mb=memory.pss,
        import_mb=import_mb,
    )


def _read_pixel(images: Images) -> None:
    """Read a pixel, as any consumer of the batch would."""
    images[0, 0, 0, 0]


def _loader_config(task: Task) -> LoaderConfig:
    return LoaderConfig(
        shards=tuple(task.shards),
        batch_size=task.batch_size,
        image_size=task.image_size,
        augment=AugmentConfig() if task.recipe == "full" else AugmentConfig(jitter_prob=0.0, gray_prob=0.0),
        tokenizer=TokenizerConfig(context_length=task.context_length),
        num_epochs=None,
        num_threads=task.threads,
    )


if __name__ == "__main__":
    sys.exit(main())
