"""What a calibration keeps of labelled items, and what it says about new ones, against loops over the items."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from tests.support.refusals import refusal_of

from prolip.calibration.abstain import abstention_threshold, threshold_order
from prolip.calibration.calibration import (
    Calibration,
    Evidence,
    Subject,
    fit_calibration,
    load_calibration,
    save_calibration,
    score_labels,
)
from prolip.calibration.conformal import class_thresholds, conformal_threshold
from prolip.calibration.fitting import fit_known, fit_pairs, fit_temperature, label_shares

LABELS = 3
SCORES = ("lac", "csd")


def labelled(seed, count):
    """Evidence, without a prior, on items of three labels, of which the first is frequent."""
    draws = torch.Generator().manual_seed(seed)
    truth = torch.multinomial(torch.tensor([0.6, 0.3, 0.1]).double(), count, replacement=True, generator=draws)
    logits, distance, pairs = torch.randn(3, count, LABELS, generator=draws, dtype=torch.float64)
    match = torch.nn.functional.one_hot(truth, LABELS)
    means = torch.randn(count, 4, generator=draws, dtype=torch.float64) + 2 * truth[:, None]
    return Evidence(logits + match, distance.abs() + 1 - match, pairs + match, means), truth


def calibrated(of=0, count=200, **settings):
    evidence, truth = labelled(of, count)
    subject = Subject("model", "digest", "photos", ["a", "b", "c"], ["a photo of a {}"])
    return *fit_calibration(evidence, truth, subject, **settings), evidence, truth


@given(st.integers(0, 99), st.sampled_from(SCORES), st.sampled_from(["labelled", "even"]), st.floats(0.1, 0.9))
@settings(max_examples=20)
def test_one_part_of_the_items_fits_and_the_other_is_held(seed, score, prior, share):
    found, held, evidence, truth = calibrated(seed, 80, score=score, prior=prior, fit_share=share, seed=seed)
    fitting = torch.tensor(sorted({*range(80)} - {*held.tolist()}))
    assert len(fitting) == int(80 * share) == 80 - len(held)
    expected = label_shares(truth[fitting], LABELS) if prior == "labelled" else [1 / LABELS] * LABELS
    assert (found.prior or expected) == pytest.approx(expected)
    assert (found.prior is None) == (prior == "even")
    known = evidence._replace(logits=evidence.logits + torch.tensor(expected).double().log())
    assert found.temperature == pytest.approx(fit_temperature(known.logits[fitting], truth[fitting]), rel=1e-6)
    match = torch.nn.functional.one_hot(truth, LABELS).bool()
    assert found.pairs == pytest.approx(fit_pairs(evidence.pair_logits[fitting], match[fitting]), rel=1e-4)
    shares = (known.logits / found.temperature).softmax(1)
    right = shares.argmax(1) == truth
    of_truth = score_labels(known, found.score, found.temperature).gather(1, truth[:, None])[:, 0]
    distance = fit_known(evidence.means[fitting], truth[fitting]).distance(evidence.means[held])
    for got, wanted in zip(
        found.held, (of_truth[held], truth[held], shares.amax(1)[held], right[held], distance), strict=True
    ):
        torch.testing.assert_close(got, wanted.to(got.dtype))
    order = fitting[shares.amax(1)[fitting].argsort()]
    torch.testing.assert_close(found.fitted.confidence.sort().values, shares.amax(1)[order])
    torch.testing.assert_close(found.fitted.correct[found.fitted.confidence.argsort()], right[order].long())


@given(st.integers(0, 99), st.sampled_from(SCORES), st.floats(0.01, 0.99), st.booleans())
@settings(max_examples=40)
def test_a_set_has_the_most_probable_label_and_all_below_the_threshold(seed, score, guarantee, per_label):
    found, *_ = calibrated(score=score)
    evidence = found.with_prior(labelled(seed, 30)[0])
    scores = score_labels(evidence, found.score, found.temperature)
    if score == "csd":
        torch.testing.assert_close(scores, evidence.distance)
    else:
        torch.testing.assert_close(scores, 1 - (evidence.logits / found.temperature).softmax(1))
    threshold = torch.full((LABELS,), conformal_threshold(found.held.score, guarantee), dtype=torch.float64)
    if per_label:
        threshold = class_thresholds(found.held.score, found.held.label, LABELS, guarantee, seed=found.seed).value
    sets = found.label_sets(evidence, guarantee, per_label=per_label)
    for item in range(30):
        expected = {label for label in range(LABELS) if scores[item, label] <= threshold[label]}
        assert {*sets[item].nonzero().flatten().tolist()} == expected | {int(evidence.logits[item].argmax())}


def test_probabilities_decide_when_to_abstain_and_distances_what_is_usual():
    found, _, _, _ = calibrated()
    new = found.with_prior(labelled(1, 50)[0])
    torch.testing.assert_close(found.confidence(new), (new.logits / found.temperature).softmax(1).amax(1))
    torch.testing.assert_close(
        new.logits - labelled(1, 50)[0].logits, torch.tensor(found.prior).double().log().expand(50, -1)
    )
    for limit in (0.1, 0.3, 0.5):
        order = threshold_order(found.fitted.confidence, found.fitted.correct, limit)
        for delta in (0.05, 0.4):
            expected = abstention_threshold(found.held.confidence, found.held.correct, order, limit, delta=delta)
            np.testing.assert_equal(tuple(found.abstention(limit, delta=delta)), tuple(expected))
    means = torch.cat([new.means, torch.full((1, 4), 1e3).double()])
    farther = (found.held.distance >= found.known.distance(means)[:, None]).sum(1)
    torch.testing.assert_close(found.usual(means), (1 + farther).double() / (len(found.held.distance) + 1))


@pytest.mark.parametrize("changes", [{}, {"prior": None, "pairs": None}])
def test_a_saved_calibration_loads_equal(tmp_path, changes):
    expected = dataclasses.replace(calibrated(of=4)[0], **changes)
    save_calibration(expected, tmp_path / "file")
    found = load_calibration(tmp_path / "file")
    for field in dataclasses.fields(Calibration):
        one, other = getattr(found, field.name), getattr(expected, field.name)
        if field.name in {"held", "fitted", "known"}:
            assert all(map(torch.equal, one, other))
        else:
            assert one == other


def test_too_few_items_or_labels_are_refused():
    with refusal_of("data"):
        calibrated(count=6, fit_share=0.3)
    assert math.isfinite(calibrated(count=7, fit_share=0.3)[0].temperature)
    found, *_ = calibrated(score="lac")
    with refusal_of("score"):
        score_labels(labelled(0, 2)[0], "aps", 1.0)
    with refusal_of("calibration"):
        found.subject.check_model("other")
