"""Ratios of contenders that took turns, and warnings about them."""

from __future__ import annotations

from prolip.bench.rounds import Spread, cpu_ratio, cpu_us, rate_ratio, rates, warnings
from prolip.bench.task import Turn


def turns(*values: tuple[float, float]) -> list[Turn]:
    return [Turn(images_per_s=rate, cpu_us=cpu) for rate, cpu in values]


def test_a_ratio_compares_measurements_of_the_same_round() -> None:
    ours, theirs = turns((200, 5), (100, 10), (300, 4)), turns((100, 10), (50, 30), (100, 4))
    assert rates(ours) == (200, 100, 300)
    assert cpu_us(ours) == (5, 4, 10)
    assert rate_ratio(ours, theirs) == (2, 2, 3)
    assert cpu_ratio(ours, theirs) == (2, 1, 3)
    assert Spread.of([1234.4, 2.0]).text() == "618 (2 - 1,234)"
    assert Spread.of([0.126]).text(2) == "0.13 (0.13 - 0.13)"


def test_warnings_name_inexact_measurements() -> None:
    even, uneven = Spread(100, 95, 105), Spread(100, 80, 120)
    assert list(warnings([("a", even)], 0.05)) == []
    first, second = warnings([("a", even), ("b", uneven)], 0.5)
    assert first.startswith("warning: the rounds of b differ by up to 50%")
    assert second == "warning: other programs kept 0.5 cores busy, which slows every contender down"
