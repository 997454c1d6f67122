"""The loader in one's own loop on a CPU, at torch's default number of threads, beside torchvision's.

    python -m tests.bench.own_loop --images DIR

The full recipe makes batches of normalised float32 images; `raw` are the loader's bytes. All sides take turns, each in
a process of its own, first on the machine as it is, then beside a process that keeps one core busy. A ratio is the
median over the rounds, with the lowest and the highest in brackets.
"""

import argparse
import math
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

from tests.bench.targets import Turn, row

from prolip.bench.config import BenchDataConfig
from prolip.bench.contender import published_transform
from prolip.bench.proc_stats import stopwatch
from prolip.build.config import FolderConfig
from prolip.build.folder import build_folder
from prolip.data import AugmentConfig, BatchLoader, LoaderConfig, StoreConfig, expand_shards
from prolip.report.text_table import align

WARM_BATCHES = 8
"""More than are read ahead."""
TARGETS = {"quiet": 0.85, "beside a busy process": 0.7}
"""The rate of normalised batches over that of `raw`."""


def _settings(config: BenchDataConfig) -> LoaderConfig:
    return LoaderConfig(
        shards=config.shards,
        batch_size=config.batch_size,
        image_size=config.image_size,
        augment=AugmentConfig(),
        num_epochs=None,
        num_threads=config.threads,
    )


def _raw(config: BenchDataConfig, folder: Path) -> Iterator[Any]:
    del folder
    return (batch.images for batch in BatchLoader(_settings(config)))


def _device_batches(config: BenchDataConfig, folder: Path) -> Iterator[Any]:
    import torch

    from prolip.data.device import device_batches

    del folder
    return (batch.images for batch in device_batches(BatchLoader(_settings(config)), torch.device("cpu")))


def _batch_dataset(config: BenchDataConfig, folder: Path) -> Iterator[Any]:
    from torch.utils.data import DataLoader

    from prolip.interop import BatchDataset

    del folder
    loader = DataLoader(BatchDataset(_settings(config)), batch_size=None)
    while True:
        yield from (batch.images for batch in loader)


def _image_folder(config: BenchDataConfig, folder: Path) -> Iterator[Any]:
    from torch.utils.data import ConcatDataset, DataLoader
    from torchvision.datasets import ImageFolder

    found = ImageFolder(str(folder), published_transform(config))
    # One epoch has enough for a turn: at the end of an epoch the workers stand still.
    copies = math.ceil((config.num_images + (WARM_BATCHES + 1) * config.batch_size) / len(found))
    loader = DataLoader(ConcatDataset([found] * copies), config.batch_size, shuffle=True, num_workers=config.threads)
    yield from (images for images, _ in loader)


SIDES: dict[str, Callable[[BenchDataConfig, Path], Iterator[Any]]] = {
    "raw": _raw,
    "device_batches": _device_batches,
    "BatchDataset and DataLoader": _batch_dataset,
    "ImageFolder and DataLoader": _image_folder,
}


def turn(side: str, config: BenchDataConfig, folder: Path) -> Turn:
    """The rate of one side, which reads one pixel of each batch."""
    batches = SIDES[side](config, folder)
    for images in islice(batches, WARM_BATCHES):
        images[0, 0, 0, 0]
    count = math.ceil(config.num_images / config.batch_size)
    elapsed = stopwatch()
    for images in islice(batches, count):
        images[0, 0, 0, 0]
    took, total = elapsed(), count * config.batch_size
    return Turn(total / took.seconds, took.cpu_seconds / total * 1e6)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of JPEG files")
    for name, default in (("threads", 2), ("repeats", 5), ("num_images", 2048), ("batch_size", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args(words)
    os.environ.pop("OMP_NUM_THREADS", None)
    rows = []
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        shards, folder = Path(place, "shards"), Path(place, "folder")
        built = build_folder(FolderConfig(images=options.images, captions="name"), shards)
        folder.mkdir()
        (folder / "class").symlink_to(options.images.absolute())
        # A batch needs more samples than a small folder has.
        copies = math.ceil(4 * options.batch_size / sum(built.samples.values()))
        config = BenchDataConfig(
            shards=tuple(expand_shards([f"{shards}/*.tar"], StoreConfig()) * copies),
            threads=options.threads,
            num_images=options.num_images,
            batch_size=options.batch_size,
        )
        for how, target in TARGETS.items():
            if how != "quiet":
                busy = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
                stack.callback(busy.kill)
            turns = {side: [] for side in SIDES}
            for _ in range(options.repeats):
                for side, found in turns.items():
                    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                        found.append(pool.submit(turn, side, config, folder).result())
            for side, found in turns.items():
                ours = side in {"device_batches", "BatchDataset and DataLoader"}
                rows.append(row(f"{side}, {how}", found, "raw", turns["raw"], target if ours else None))
    print("\n".join(align([["", "images/s", "against", "ratio", "by CPU time", "target", "", "CPU us"], *rows])))


if __name__ == "__main__":
    main()
