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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec

from prolip.bench.config import BenchDataConfig
from prolip.bench.rounds import rates, warnings
from prolip.bench.task import Measurement, Task
from prolip.data import expand_shards
from prolip.errors import UserError
from prolip.report.text_table import align

OURS = "prolip"
FLOOR = "decode-only"
BASELINES = {
    "webdataset": ("torchvision",),
    "hand-made": ("torchvision",),
    "hand-made-cv2": ("torchvision", "simplejpeg", "cv2"),
    "prolip-float32": (),
}
"""Baselines by name, with the modules that each needs besides the project's dependencies."""
PACKAGES = {"cv2": "opencv-python-headless"}
"""Packages whose name differs from their module's."""


_HEADINGS = [
    "",
    *("images/s", "min - max", "spread", "of floor", "ours is", "CPU us", "decoding"),
    *("RSS MB", "PSS MB", "imports", "1st batch", "others"),
]
LEVEL_VARIABLE = "PROLIP_SIMD"
"""The environment variable that selects the vector instructions of our kernels."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All runs of one contender."""

    name: str
    runs: tuple[Measurement, ...]

    def median(self, value: Callable[[Measurement], float]) -> float:
        """Return the median of a value over the runs."""
        return statistics.median(map(value, self.runs))

    @property
    def images_per_s(self) -> float:
        """Median of images per second."""
        return self.median(lambda run: run.images_per_s)

    @property
    def spread(self) -> float:
        """The fastest run's rate over the slowest one's."""
        rates = [run.images_per_s for run in self.runs]
        return max(rates) / min(rates)

    @property
    def cpu_us(self) -> float:
        """Median CPU time per image in microseconds."""
        return self.median(lambda run: run.cpu_us)


def contenders(config: BenchDataConfig) -> tuple[str, ...]:
    """Return the names to measure: the loader, the floor, then the baselines.

    Raises:
        UserError: a baseline is unknown or needs a package that is not installed, or a number is out of range.
    """
    for name in ("threads", "repeats", "num_images", "batch_size", "image_size"):
        if getattr(config, name) < 1:
            raise UserError(f"{name} is {getattr(config, name)}: it must be at least 1")
    named = dict.fromkeys(name for words in config.against for name in words.split(",") if name)
    for name in named:
        if name not in BASELINES:
            raise UserError(f"against is {name!r}: it must be one of {', '.join(BASELINES)}")
        missing = [PACKAGES.get(module, module) for module in BASELINES[name] if find_spec(module) is None]
        if missing:
            raise UserError(
                f"against is {name!r}: it needs {' and '.join(missing)}, try `pip install {' '.join(missing)}`"
            )
    return OURS, FLOOR, *named


def measure(config: BenchDataConfig, names: tuple[str, ...], log: Callable[[str], object]) -> tuple[Summary, ...]:
    """Run all contenders in turn, `repeats` times.

    Args:
        config: what to measure.
        names: the contenders.
        log: called with a line after each run.

    Raises:
        UserError: no shard matches, or they hold less than a batch.
        RuntimeError: a contender failed; the message ends with what it wrote.
    """
    shards = tuple(expand_shards(list(config.shards)))
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
    return tuple(Summary(name=name, runs=tuple(found)) for name, found in runs.items())


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


def json_lines(config: BenchDataConfig, summaries: tuple[Summary, ...]) -> Iterator[str]:
    """Yield one JSON object per contender."""
    for summary in summaries:
        rates = [run.images_per_s for run in summary.runs]
        record: dict[str, object] = {
            "name": summary.name,
            "recipe": config.recipe,
            "threads": config.threads,
            "images_per_s": round(summary.images_per_s, 1),
            "min": round(min(rates), 1),
            "max": round(max(rates), 1),
            "rss_mb": round(summary.median(lambda run: run.rss_mb)),
            "pss_mb": round(summary.median(lambda run: run.pss_mb)),
            "import_mb": round(summary.median(lambda run: run.import_mb)),
            "first_batch_s": round(summary.median(lambda run: run.first_batch_s), 3),
            "cpu_us": round(summary.cpu_us),
            "others_cores": round(max(run.others_cores for run in summary.runs), 2),
        }
        if stages := _stages(summary):
            record["stage_us"] = {name: round(value, 1) for name, value in stages.items()}
        yield json.dumps(record)


def table(config: BenchDataConfig, summaries: tuple[Summary, ...]) -> Iterator[str]:
    """Yield the lines of a table for people."""
    yield (
        f"recipe {config.recipe}, {config.threads} threads, batches of {config.batch_size} at {config.image_size} px, "
        f"{config.repeats} rounds of {config.num_images} images"
    )
    cells = [_HEADINGS, *(_cells(summary, summaries) for summary in summaries)]
    yield from align(cells)
    for summary in summaries:
        if stages := _stages(summary):
            parts = ", ".join(f"{name} {value:.0f}" for name, value in stages.items())
            yield f"CPU us of {summary.name} by stage: {parts}"
    yield "spread: by how much the fastest round beat the slowest; of floor: rate over that of decode-only"
    yield "decoding: share of the CPU time that decoding alone takes; others: cores of other programs, worst round"
    busy = max(run.others_cores for summary in summaries for run in summary.runs)
    yield from warnings(((summary.name, rates(summary.runs)) for summary in summaries), busy)


def _cells(summary: Summary, summaries: tuple[Summary, ...]) -> list[str]:
    """Return a contender's row of the table."""
    ours, floor = summaries[:2]
    rates = [run.images_per_s for run in summary.runs]
    first = summary.median(lambda run: run.first_batch_s)
    return [
        summary.name,
        f"{summary.images_per_s:.0f}",
        f"{min(rates):.0f} - {max(rates):.0f}",
        f"{summary.spread - 1:.0%}",
        f"{summary.images_per_s / floor.images_per_s:.2f}",
        f"{ours.images_per_s / summary.images_per_s:.2f} x",
        f"{summary.cpu_us:.0f}",
        f"{floor.cpu_us / summary.cpu_us:.2f}" if summary.cpu_us else "-",  # less than a tick of the system's clock
        f"{summary.median(lambda run: run.rss_mb):.0f}",
        f"{summary.median(lambda run: run.pss_mb):.0f}",
        f"{summary.median(lambda run: run.import_mb):.0f}",
        f"{first:.2f} s" if first else "-",
        f"{max(run.others_cores for run in summary.runs):.2f}",
    ]


def _stages(summary: Summary) -> dict[str, float]:
    """Return the CPU time per image by stage in microseconds, median over the runs."""
    names = dict.fromkeys(name for run in summary.runs for name in run.stage_us)
    return {name: statistics.median(run.stage_us.get(name, 0.0) for run in summary.runs) for name in names}
