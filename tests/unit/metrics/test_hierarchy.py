"""Inclusion along a chain of levels."""

from __future__ import annotations

import math

import pytest
from tests.support.random_gaussians import gaussians

from prolip.gaussian import inclusion_score
from prolip.metrics.hierarchy import inclusion, inclusion_chain, inclusion_in_each


def test_a_narrow_gaussian_lies_in_a_wide_one() -> None:
    narrow, wide = gaussians(5, 8, seed=0, log_var=-6.0), gaussians(5, 8, seed=1, log_var=-2.0)
    inside, outside = inclusion(narrow, wide, ("a", "b")), inclusion(wide, narrow, ("b", "a"))
    assert inside.share_positive == 1.0
    assert outside.share_positive == 0.0
    assert inside.mean_score == pytest.approx(-outside.mean_score)
    assert inside.mean_score == pytest.approx(float(inclusion_score(narrow, wide).mean()))


def test_a_zero_inclusion_score_counts_half() -> None:
    level = gaussians(4, 8, seed=0)
    assert inclusion(level, level, ("a", "a")).share_positive == 0.5


def test_inclusion_of_no_items_is_nan() -> None:
    empty = gaussians(0, 8, seed=0)
    assert math.isnan(inclusion(empty, empty, ("a", "b")).mean_score)


def test_chain_and_star_steps_name_their_levels() -> None:
    levels = [(name, gaussians(3, 4, seed=place)) for place, name in enumerate("abcd")]
    assert [(step.specific, step.general) for step in inclusion_chain(levels)] == [("a", "b"), ("b", "c"), ("c", "d")]
    assert [(s.specific, s.general) for s in inclusion_in_each(levels[0], levels[1:])] == [
        ("a", "b"),
        ("a", "c"),
        ("a", "d"),
    ]
