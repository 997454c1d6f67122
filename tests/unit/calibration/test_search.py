"""Limits of a calibrated search by hand, and its file."""

import dataclasses
import math

import pytest
import torch
from tests.support.refusals import refusal_of

from prolip.calibration.calibration import Subject
from prolip.calibration.search import (
    KnownQueries,
    SearchCalibration,
    fit_queries,
    load_search_calibration,
    save_search_calibration,
)

RIGHT = torch.arange(1.0, 20.0).double()
"""Of 19 queries; the nearest wrong image is at 10.5 for each odd one, and at 0 for the others."""
WRONG = 10.5 * (torch.arange(19) % 2).double()
FOUND = SearchCalibration(
    subject=Subject("model", "digest", "photos", [], []),
    score="csd",
    num_images=100,
    text=KnownQueries(RIGHT, WRONG, torch.tensor([2.0, -3.0]).double()),
    image=KnownQueries(*torch.zeros(3, 0).double()),
    words=[3, 1],
)


def test_limits_have_the_finite_sample_correction():
    assert FOUND.limits("text", 100, contains_right=0.9) == (-math.inf, 2, 18 / 20)
    assert FOUND.limits("text", 10**9, contains_right=0.95) == (-math.inf, 1, 19 / 20)
    assert FOUND.limits("text", 100, contains_right=0.96) == (-math.inf, -math.inf, 19 / 20), "too few queries"
    assert FOUND.limits("text", 50, max_wrong=0.5)[:2] == (0, -math.inf)
    assert FOUND.limits("text", 200, max_wrong=0.5)[:2] == (10.5, -math.inf), "as 0.25 of the known collection"
    assert FOUND.limits("text", 1000, max_wrong=0.1).shown == math.inf, "as 0.01, and there are too few queries"
    # Above 10.5 are the right images of 11 to 19.
    assert FOUND.limits("text", 100, contains_right=0.9, max_wrong=0.1) == (10.5, 2, 9 / 20)


def test_decoys_promise_restraint_alone():
    found = dataclasses.replace(FOUND, text=KnownQueries(WRONG[:0], WRONG, WRONG[:0]))
    assert found.limits("text", 100, max_wrong=0.5) == (0, -math.inf, None)
    with refusal_of("contains_right"):
        found.limits("text", 100, contains_right=0.9, max_wrong=0.5)


def test_odds_shrink_with_the_collection():
    scores = torch.tensor([1.0, 1.5])
    torch.testing.assert_close(FOUND.probability("text", scores, 7), (2 * scores.double() - 3).sigmoid())
    assert FOUND.probability("text", scores, 300).tolist()[1] == pytest.approx(1 / 4)


def test_few_queries_have_finite_probabilities():
    right, wrong = torch.full((2, 3), -math.inf), torch.tensor([[0.3, 0.2, -math.inf], [0.1, -math.inf, -math.inf]])
    assert fit_queries(right, wrong).match.isfinite().all()
    assert not fit_queries(right[:0], wrong[:0]).right.numel()


def test_unknown_kinds_and_wrong_promises_are_refused():
    for field, kind, promise in (
        ("calibration", "image", {"max_wrong": 0.1}),
        ("max_wrong", "text", {"max_wrong": 10}),
        ("contains_right", "text", {"contains_right": 1.0}),
    ):
        with refusal_of(field):
            FOUND.limits(kind, 100, **promise)
    with refusal_of("calibration"):
        FOUND.subject.check_model("other")


def test_a_saved_calibration_loads_equal(tmp_path):
    save_search_calibration(FOUND, tmp_path / "file")
    found = load_search_calibration(tmp_path / "file")
    for field in dataclasses.fields(FOUND):
        one, other = getattr(found, field.name), getattr(FOUND, field.name)
        assert all(map(torch.equal, one, other)) if isinstance(one, KnownQueries) else one == other
    (tmp_path / "other").write_bytes(b"")
    for name in ("absent", "other"):
        with refusal_of(str(tmp_path / name)):
            load_search_calibration(tmp_path / name)
