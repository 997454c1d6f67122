"""`prolip bench data`: the loader, the floor of decoding alone, and baselines on the same shards in one run.

Every measurement is a fresh process (`prolip.bench.contender`), so that each contender's memory and warm-up are its
own; the contenders take turns, so that a change of the machine's mood meets all of them.
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
from prolip.bench.task import Measurement, Task
from prolip.data import expand_shards

OURS = "prolip"
FLOOR = "decode-only"
BASELINES = {
    "webdataset": ("torchvision",),
    "hand-made": ("torchvision",),
    "hand-made-cv2": ("torchvision", "simplejpeg", "cv2"),
    "prolip-fast": (),
    "prolip-float32": (),
}
"""Names of `against` and the modules that each needs besides the project's own dependencies."""
PACKAGES = {"cv2": "opencv-python-headless"}
"""Packages whose name is not their module's."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All runs of one contender."""

    name: str
    runs: tuple[Measurement, ...]

    def median(self, of: Callable[[Measurement], float]) -> float:
        """The median of a figure over the runs."""
        return statistics.median(map(of, self.runs))

    @property
    def images_per_s(self) -> float:
        """Pictures a second, median."""
        return self.median(lambda run: run.images_per_s)

    @property
    def cpu_us(self) -> float:
        """Processor time of a picture in microseconds, median."""
        return self.median(lambda run: run.cpu_us)


def contenders(config: BenchDataConfig) -> tuple[str, ...]:
    """The names to measure, ours and the floor first.

    Raises:
        ValueError: a baseline is unknown or needs a package that is not installed, or a number is out of range.
    """
    for name in ("threads", "repeats", "images", "batch_size"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} is {getattr(config, name)}: it must be at least 1")
    named = dict.fromkeys(name for words in config.against for name in words.split(",") if name)
    for name in named:
        if name not in BASELINES:
            raise ValueError(f"against is {name!r}: it must be one of {', '.join(BASELINES)}")
        missing = [PACKAGES.get(module, module) for module in BASELINES[name] if find_spec(module) is None]
        if missing:
            raise ValueError(
                f"against is {name!r}: it needs {' and '.join(missing)}, try `pip install {' '.join(missing)}`"
            )
    return OURS, FLOOR, *named


def measure(config: BenchDataConfig, names: tuple[str, ...], say: Callable[[str], object]) -> tuple[Summary, ...]:
    """Runs all contenders in turn, `repeats` times.

    Args:
        config: What to measure.
        names: The contenders.
        say: Told of each run when it is over.

    Raises:
        ValueError: no shard matches.
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
                images=config.images,
                batch_size=config.batch_size,
            )
            runs[name].append(_run(task))
            say(f"round {number + 1} of {config.repeats}: {name} {runs[name][-1].images_per_s:.0f} images/s")
    return tuple(Summary(name=name, runs=tuple(found)) for name, found in runs.items())


def _run(task: Task) -> Measurement:
    """One contender in its own process. Idle threads of numeric libraries sleep: the contenders bring their own."""
    done = subprocess.run(
        [sys.executable, "-m", "prolip.bench.contender"],
        input=task.to_json(),
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{task.contender} ended with status {done.returncode}: {done.stderr.strip()[-2000:]}")
    return Measurement.from_json(done.stdout.splitlines()[-1])


def json_lines(config: BenchDataConfig, summaries: tuple[Summary, ...]) -> Iterator[str]:
    """One JSON object a contender."""
    for one in summaries:
        rates = [run.images_per_s for run in one.runs]
        record: dict[str, object] = {
            "name": one.name,
            "recipe": config.recipe,
            "threads": config.threads,
            "images_per_s": round(one.images_per_s, 1),
            "min": round(min(rates), 1),
            "max": round(max(rates), 1),
            "rss_mb": round(one.median(lambda run: run.rss_mb)),
            "pss_mb": round(one.median(lambda run: run.pss_mb)),
            "import_mb": round(one.median(lambda run: run.import_mb)),
            "first_batch_s": round(one.median(lambda run: run.first_batch_s), 3),
            "cpu_us": round(one.cpu_us),
            "others_cores": round(max(run.others_cores for run in one.runs), 2),
        }
        if stages := _stages(one):
            record["stage_us"] = {name: round(value, 1) for name, value in stages.items()}
        yield json.dumps(record)


def table(config: BenchDataConfig, summaries: tuple[Summary, ...]) -> Iterator[str]:
    """The lines of a table for people."""
    ours, floor = summaries[0].images_per_s, summaries[1].images_per_s
    least_cpu = summaries[1].cpu_us
    yield (
        f"recipe {config.recipe}, {config.threads} threads, batches of {config.batch_size}, "
        f"{config.repeats} rounds of {config.images} images"
    )
    yield (
        f"{'':15} {'images/s':>8} {'min - max':>13} {'of floor':>8} {'ours is':>8} {'CPU us':>7} {'of floor':>8} "
        f"{'RSS MB':>7} {'PSS MB':>7} {'imports':>7} {'1st batch':>9} {'others':>6}"
    )
    for one in summaries:
        rates = [run.images_per_s for run in one.runs]
        first = one.median(lambda run: run.first_batch_s)
        yield (
            f"{one.name:15} {one.images_per_s:8.0f} {f'{min(rates):.0f} - {max(rates):.0f}':>13} "
            f"{one.images_per_s / floor:8.2f} {f'{ours / one.images_per_s:.2f} x':>8} "
            f"{one.cpu_us:7.0f} {least_cpu / one.cpu_us:8.2f} {one.median(lambda run: run.rss_mb):7.0f} "
            f"{one.median(lambda run: run.pss_mb):7.0f} {one.median(lambda run: run.import_mb):7.0f} "
            f"{f'{first:.2f} s' if first else '-':>9} {max(run.others_cores for run in one.runs):6.2f}"
        )
    for one in summaries:
        if stages := _stages(one):
            parts = ", ".join(f"{name} {value:.0f}" for name, value in stages.items())
            yield f"CPU us of {one.name} by stage: {parts}"
    yield "others: cores that the rest of the machine kept busy, worst round; above 0.1 the figures are disturbed"


def _stages(summary: Summary) -> dict[str, float]:
    """Microseconds of a picture by stage, median over the runs."""
    names = dict.fromkeys(name for run in summary.runs for name in run.stage_us)
    return {name: statistics.median(run.stage_us.get(name, 0.0) for run in summary.runs) for name in names}
