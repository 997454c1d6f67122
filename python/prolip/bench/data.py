"""`prolip bench data`: measure the loader, pure decoding (the floor) and baselines on the same shards in one run.

Each measurement runs in a new process (`prolip.bench.contender`), with its own memory and warm-up. Contenders take
turns, so that a change in the machine's speed affects all of them.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec

from prolip.bench.config import BenchDataConfig, split_names
from prolip.bench.rounds import cpu_us, rates, warnings
from prolip.bench.task import Measurement, Task
from prolip.data import StoreConfig, expand_shards
from prolip.errors import UserError, check_at_least
from prolip.report.text_table import align

OURS = "prolip"
FLOOR = "decode-only"
BASELINES = {
    "webdataset": ("torchvision", "open_clip", "webdataset"),
    "hand-made": ("torchvision", "open_clip"),
    "hand-made-cv2": ("torchvision", "open_clip", "simplejpeg", "cv2"),
    "prolip-float32": (),
}
"""Baselines by name, with the modules that each needs besides the project's dependencies."""
PACKAGES = {"cv2": "opencv-python-headless", "open_clip": "open_clip_torch"}
"""Packages whose name differs from their module's."""
Runs = Mapping[str, Sequence[Measurement]]
"""For each contender, the loader and the floor first: one run per round."""

_HEADINGS = [
    "",
    *("images/s", "min - max", "spread", "of floor", "ours is", "CPU us", "decoding"),
    *("RSS MB", "PSS MB", "imports", "1st batch", "others"),
]
LEVEL_VARIABLE = "PROLIP_SIMD"
"""The environment variable that selects the vector instructions of our kernels."""


def contenders(config: BenchDataConfig) -> tuple[str, ...]:
    """Return the names to measure: the loader, the floor, then the baselines.

    Raises:
        UserError: a baseline is unknown or needs a package that is not installed, or a number is out of range.
    """
    check_at_least(1, threads=config.threads, repeats=config.repeats, num_images=config.num_images)
    check_at_least(1, batch_size=config.batch_size, image_size=config.image_size)
    named = split_names(config.against)
    for name in named:
        if name not in BASELINES:
            raise UserError(f"against is {name!r}: it must be one of {', '.join(BASELINES)}")
        missing = [PACKAGES.get(module, module) for module in BASELINES[name] if find_spec(module) is None]
        if missing:
            raise UserError(
                f"against is {name!r}: it needs {' and '.join(missing)}, try `pip install {' '.join(missing)}`"
            )
    return OURS, FLOOR, *named


def measure(config: BenchDataConfig, names: tuple[str, ...], log: Callable[[str], object]) -> Runs:
    """Run all contenders in turn, `repeats` times.

    Args:
        config: what to measure.
        names: the contenders.
        log: called with a line after each run.

    Raises:
        UserError: no shard matches, or they hold less than a batch.
        RuntimeError: a contender failed; the message ends with what it wrote.
    """
    shards = tuple(expand_shards(list(config.shards), StoreConfig()))
    runs: dict[str, list[Measurement]] = {name: [] for name in names}
    for number in range(config.repeats):
        for name in names:
            task = Task(
                contender=name,
                shards=shards,
                recipe=config.recipe,
                threads=config.threads,
                images=config.num_images,
                batch_size=config.batch_size,
                image_size=config.image_size,
            )
            runs[name].append(run_task(task))
            log(f"round {number + 1} of {config.repeats}: {name} {runs[name][-1].images_per_s:.0f} images/s")
    return runs


def run_task(task: Task, level: str | None = None) -> Measurement:
    """Run one contender in its own process, with the vector instructions of `level`, or those of the environment.

    Numeric libraries get one thread: contenders have their own workers.

    Raises:
        RuntimeError: the contender failed; the message ends with what it wrote.
    """
    done = subprocess.run(
        [sys.executable, "-m", "prolip.bench.contender"],
        input=task.to_json(),
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **({} if level is None else {LEVEL_VARIABLE: level})},
        check=False,
    )
    if done.returncode == 2:
        raise UserError(done.stderr.strip().splitlines()[-1])
    if done.returncode:
        raise RuntimeError(f"{task.contender} ended with status {done.returncode}: {done.stderr.strip()[-2000:]}")
    return Measurement.from_json(done.stdout.splitlines()[-1])


def json_lines(config: BenchDataConfig, runs: Runs) -> Iterator[str]:
    """Yield one JSON object per contender."""
    for name, found in runs.items():
        rate = rates(found)
        record: dict[str, object] = {
            "name": name,
            "recipe": config.recipe,
            "threads": config.threads,
            "images_per_s": round(rate.median, 1),
            "min": round(rate.least, 1),
            "max": round(rate.most, 1),
            **{field: round(_median(found, field)) for field in ("rss_mb", "pss_mb", "import_mb")},
            "first_batch_s": round(_median(found, "first_batch_s"), 3),
            "cpu_us": round(cpu_us(found).median),
            "others_cores": round(max(run.others_cores for run in found), 2),
        }
        if stages := _stages(found):
            record["stage_us"] = {name: round(value, 1) for name, value in stages.items()}
        yield json.dumps(record)


def table(config: BenchDataConfig, runs: Runs) -> Iterator[str]:
    """Yield the lines of a table for people."""
    yield (
        f"recipe {config.recipe}, {config.threads} threads, batches of {config.batch_size} at {config.image_size} px, "
        f"{config.repeats} rounds of {config.num_images} images"
    )
    yield from align([_HEADINGS, *(_cells(name, runs) for name in runs)])
    for name, found in runs.items():
        if stages := _stages(found):
            parts = ", ".join(f"{stage} {value:.0f}" for stage, value in stages.items())
            yield f"CPU us of {name} by stage: {parts}"
    yield "spread: by how much the fastest round beat the slowest; of floor: rate over that of decode-only"
    yield "decoding: share of the CPU time that decoding alone takes; others: cores of other programs, worst round"
    busy = max(run.others_cores for found in runs.values() for run in found)
    yield from warnings(((name, rates(found)) for name, found in runs.items()), busy)


def _cells(name: str, runs: Runs) -> list[str]:
    """Return a contender's row of the table."""
    found = runs[name]
    rate, cpu = rates(found), cpu_us(found).median
    first = _median(found, "first_batch_s")
    return [
        name,
        f"{rate.median:.0f}",
        f"{rate.least:.0f} - {rate.most:.0f}",
        f"{rate.most / rate.least - 1:.0%}",
        f"{rate.median / rates(runs[FLOOR]).median:.2f}",
        f"{rates(runs[OURS]).median / rate.median:.2f} x",
        f"{cpu:.0f}",
        f"{cpu_us(runs[FLOOR]).median / cpu:.2f}" if cpu else "-",  # less than a tick of the system's clock
        *(f"{_median(found, field):.0f}" for field in ("rss_mb", "pss_mb", "import_mb")),
        f"{first:.2f} s" if first else "-",
        f"{max(run.others_cores for run in found):.2f}",
    ]


def _median(runs: Sequence[Measurement], field: str) -> float:
    return float(statistics.median(getattr(run, field) for run in runs))


def _stages(runs: Sequence[Measurement]) -> dict[str, float]:
    """Return the CPU time per image by stage in microseconds, median over the runs."""
    names = dict.fromkeys(name for run in runs for name in run.stage_us)
    return {name: statistics.median(run.stage_us.get(name, 0.0) for run in runs) for name in names}
