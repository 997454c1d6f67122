"""Statistics of rounds in which contenders took turns: rates, ratios with their spread, and warnings."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from prolip.bench.task import Turn

MAX_SPREAD = 1.15
"""Highest over lowest value of a contender's rounds, above which its figures are called inexact."""
MAX_OTHERS = 0.1
"""Cores that other programs may keep busy."""


class Spread(NamedTuple):
    """The median, the lowest and the highest of some values."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Return the spread of at least one value."""
        found = list(values)
        return cls(statistics.median(found), min(found), max(found))

    def text(self, decimals: int = 0) -> str:
        """Return the three numbers as text."""
        return f"{self.median:,.{decimals}f} ({self.least:,.{decimals}f} - {self.most:,.{decimals}f})"


def rates(turns: Iterable[Turn]) -> Spread:
    """Return the images per second of a contender's rounds."""
    return Spread.of(turn.images_per_s for turn in turns)


def cpu_us(turns: Iterable[Turn]) -> Spread:
    """Return the CPU time per image of a contender's rounds, in microseconds."""
    return Spread.of(turn.cpu_us for turn in turns)


def rate_ratio(ours: Sequence[Turn], theirs: Sequence[Turn]) -> Spread:
    """Return how many times as fast `ours` is: images per second over theirs in the same round."""
    return Spread.of(a.images_per_s / b.images_per_s for a, b in zip(ours, theirs, strict=True))


def cpu_ratio(ours: Sequence[Turn], theirs: Sequence[Turn]) -> Spread:
    """Return the same by CPU time: theirs over that of `ours` in the same round."""
    return Spread.of(b.cpu_us / a.cpu_us for a, b in zip(ours, theirs, strict=True))


def warnings(rates_of: Iterable[tuple[str, Spread]], others_cores: float) -> Iterator[str]:
    """Yield warnings about inexact rates: rounds that differ, and other programs."""
    uneven = {name: spread.most / spread.least for name, spread in rates_of if spread.most > spread.least * MAX_SPREAD}
    if uneven:
        yield (
            f"warning: the rounds of {', '.join(uneven)} differ by up to {max(uneven.values()) - 1:.0%}: "
            "these figures are not exact; repeat on a quiet machine, or with more --repeats"
        )
    if others_cores > MAX_OTHERS:
        yield f"warning: other programs kept {others_cores:.1f} cores busy, which slows every contender down"
