"""Measure two sides in turns in one process, and print a table."""

from __future__ import annotations

import statistics
import time
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile


@contextmanager
def one_thread():
    """Threads that wait for each other make both sides depend on what else the machine does."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Ratio:
    """Seconds of both sides and how many times faster ours is; the spread is that of neighbouring pairs."""

    theirs: float
    ours: float
    ratio: float
    low: float
    high: float

    def of(self, share):
        """The same where their side did only one part in `share` of the work."""
        return Ratio(self.theirs * share, self.ours, self.ratio * share, self.low * share, self.high * share)

    def __str__(self):
        return (
            f"{self.theirs * 1e3:,.0f} ms against {self.ours * 1e3:,.1f} ms: {self.ratio:.0f} times "
            f"({self.low:.0f} to {self.high:.0f})"
        )


def in_turns(theirs, ours, *, rounds, repeats=3):
    """Turn and turn about, so that both sides meet the same machine; ours, the short one, is repeated in each turn."""
    ours()
    pairs = []
    for _ in range(rounds):
        slow = seconds(theirs)
        pairs.append((slow, statistics.median(seconds(ours) for _ in range(repeats))))
    ratios = [slow / quick for slow, quick in pairs]
    slow, quick = (statistics.median(side) for side in zip(*pairs, strict=True))
    return Ratio(slow, quick, statistics.median(ratios), min(ratios), max(ratios))


def seconds(work):
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def peak_bytes(work):
    """The most memory that torch held at a time for what `work` made, beside what was there before."""
    work()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        work()
    events = recorded.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    held = peak = 0
    for _, change in changes:
        held += change
        peak = max(peak, held)
    return peak


def table(heads, rows):
    lines = ["| " + " | ".join(row) + " |" for row in (heads, ["---"] * len(heads), *rows)]
    return "\n" + "\n".join(lines)
