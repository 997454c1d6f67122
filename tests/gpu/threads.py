"""The loader alone on more and more threads, and how many of them the fastest training step needs."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from tests.gpu.inputs import settings
from tests.gpu.job import Job
from tests.gpu.report import known_rows
from tests.gpu.speed import FROM_SHARDS, ONE_BATCH

from prolip.data import BatchLoader, LoaderConfig

_THREADS = (1, 2, 4, 8, 16)
_GOAL = 2000.0
"""Samples per second to feed if no step was timed before."""


def scaling(job: Job) -> None:
    size, seconds = (8, 0.2) if job.small else (256, 4.0)
    config = settings(job, "threads", "--batch_size", str(size)).loader(1)
    rates: dict[int, float] = {}
    for threads in _THREADS:
        if threads > len(os.sched_getaffinity(0)):
            job.not_run(f"images/s, {threads} threads", "the machine has fewer cores")
            continue
        images, tokens = rate(replace(config, num_threads=threads), seconds)
        rates[threads] = images
        by_one = f"{images / rates[min(rates)]:.2f} × one thread"
        job.figure(f"images/s, {threads} threads", images, "", f"{tokens:,.0f} tokens/s, {by_one}")
    known = [known_rows(job.results, part) for part in ("speed", "speed, compiled")]
    fastest = max([rows[name] for rows in known for name in (FROM_SHARDS, ONE_BATCH) if name in rows], default=_GOAL)
    job.figure("cores that feed the device", cores(rates, fastest), "", f"{fastest:,.0f} samples/s")


def rate(config: LoaderConfig, seconds: float) -> tuple[float, float]:
    """Images and tokens per second, after two batches that are not counted."""
    with BatchLoader(config) as loader:
        batches = iter(loader)
        next(batches), next(batches)
        images, tokens, begun = 0, 0, time.perf_counter()
        while time.perf_counter() - begun < seconds:
            batch = next(batches)
            images += len(batch.images)
            tokens += int(np.count_nonzero(batch.token_ids))
        spent = time.perf_counter() - begun
    return images / spent, tokens / spent


def cores(rates: Mapping[int, float], wanted: float) -> str:
    """How many threads reach a rate, on straight lines between the measured ones."""
    before, rate_before = 0, 0.0
    for threads, found in sorted(rates.items()):
        if found >= wanted:
            return f"{before + (wanted - rate_before) / (found - rate_before) * (threads - before):.1f}"
        before, rate_before = threads, found
    return f"more than {before}"
