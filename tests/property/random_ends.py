"""Loaders that end at random moments: `python -m tests.property.random_ends KIND SEED ROUNDS SHARDS`."""

import gc
import os
import random
import signal
import sys
import threading
import time
import warnings
from functools import partial
from pathlib import Path

from prolip.data import AugmentConfig, BatchLoader, LoaderConfig, StoreConfig
from prolip.data.config import TokenizerConfig


def loader_threads():
    """Threads of loaders in this process, by the names that they give themselves."""
    found = 0
    for name in Path("/proc/self/task").glob("*/comm"):
        try:
            found += name.read_text().startswith("prolip-")
        except (FileNotFoundError, ProcessLookupError):
            # It ended meanwhile.
            continue
    return found


def new_loader(draw, shards):
    return BatchLoader(
        LoaderConfig(
            shards=(shards,),
            num_samples=100 if "://" in shards else None,
            batch_size=draw.choice([1, 3, 8]),
            image_size=8,
            augment=draw.choice([None, AugmentConfig()]),
            tokenizer=TokenizerConfig(context_length=8),
            shuffle_window=draw.choice([0, 5, 1000]),
            num_threads=draw.randint(1, 4),
            prefetch_batches=draw.randint(1, 5),
            num_epochs=draw.choice([1, 1, None]),
            last_batch=draw.choice(["drop", "pad", "keep"]),
            store=StoreConfig(retries=0, timeout_s=60),
        )
    )


def taken(batches, most):
    return [batch for _, batch in zip(range(most), batches, strict=False)]


def close(draw, loader):
    batches = iter(loader)
    taken(batches, draw.randint(0, 5))
    loader.close()


def drop(draw, loader):
    kept = taken(iter(loader), draw.randint(0, 5))
    del loader
    gc.collect()
    del kept


def taken_until_closed(batches, most):
    try:
        taken(batches, most)
    except RuntimeError as error:
        if "the loader is closed" not in str(error):
            raise


def close_from_another_thread(draw, loader):
    """While this one waits for a batch."""
    closing = threading.Timer(draw.random() * 0.05, loader.close)
    closing.start()
    # The run may only begin when it was closed.
    taken_until_closed(iter(loader), 200)
    closing.join()
    loader.close()


def read_by_several_threads(draw, loader):
    """Each runs through the loader, which ends the run of the one before."""
    threads = [threading.Thread(target=taken_until_closed, args=(iter(loader), draw.randint(0, 9))) for _ in range(3)]
    for thread in threads:
        thread.start()
        time.sleep(draw.random() * 0.01)
    for thread in threads:
        thread.join()
    loader.close()


def fork(draw, loader):
    """The child may not read on, and ends; the parent reads on."""
    batches = iter(loader)
    taken(batches, draw.randint(0, 2))
    with warnings.catch_warnings():
        # Newer Pythons warn of forks beside threads, which is what this is about.
        warnings.simplefilter("ignore")
        child = os.fork()
    if child == 0:
        refused = 0
        for use in (partial(next, batches), loader.stats, partial(list, loader)):
            try:
                use()
            except RuntimeError as error:
                refused += "fork" in str(error)
            except StopIteration:
                refused += 1
        loader.close()
        del batches, loader, use
        gc.collect()
        os._exit(refused != 3)
    taken(batches, draw.randint(0, 2))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    del batches
    loader.close()


ENDS = [
    close,
    drop,
    close_from_another_thread,
    read_by_several_threads,
    fork,
]


class Interrupts:
    """Counts signals; where that is wanted, each raises KeyboardInterrupt, as Ctrl-C does."""

    def __init__(self):
        self.wanted = False
        self.count = 0
        signal.signal(signal.SIGINT, self)

    def __call__(self, number, frame):
        if self.wanted:
            # One at a time, so that none is raised where nothing waits for it.
            self.wanted = False
            raise KeyboardInterrupt


def main(kind, seed, rounds, shards):
    draw, interrupts = random.Random(seed), Interrupts()
    print("ready", flush=True)
    for _ in range(rounds):
        if kind == "interrupted":
            try:
                interrupts.wanted = True
                loader = new_loader(draw, shards)
                taken(iter(loader), 100)
                interrupts.wanted = False
            except KeyboardInterrupt:
                interrupts.count += 1
        else:
            loader = new_loader(draw, shards)
            draw.choice(ENDS)(draw, loader)
        loader = None
        gc.collect()
        deadline = time.monotonic() + 20
        while loader_threads() > 0:
            assert time.monotonic() < deadline, "threads stay"
            time.sleep(0.001)
    print(f"{rounds} rounds, {interrupts.count} interrupts", flush=True)
    # Half of the runs end with a loader alive.
    if seed % 2:
        next(iter(new_loader(draw, shards)), None)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
