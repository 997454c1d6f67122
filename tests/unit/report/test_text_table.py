"""Tables for a terminal."""

from __future__ import annotations

from prolip.report.text_table import align


def test_the_first_columns_are_to_the_left_and_the_others_to_the_right() -> None:
    assert list(align([["", "rate"], ["floor", "9"]])) == ["       rate", "floor     9"]
    assert list(align([["a", "bcd", "9"], ["ab", "b", "10"]], 2)) == ["a   bcd   9", "ab  b    10"]
