"""Decisions about held-out emoji with a calibration on validation emoji."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from tests.support.emoji_shards import encoded_image, write_emoji
from tests.support.emoji_world import figures
from tests.support.untrained_run import write_run

import prolip
from prolip.decisions import label_shares, load_calibration, save_calibration
from prolip.decisions.config import CALIBRATION_FILE
from prolip.demo.run import evaluate
from prolip.demo.suite import EmojiResults
from prolip.demo.suite.emoji_samples import ImageSet, LabelledImages
from prolip.demo.suite.eval_emoji import keep_calibration
from prolip.demo.suite.label_sets import _draws, _mean, calibrate_groups, measure_decisions
from prolip.demo.suite.measure_sets import ClassPrompts, Trained, logits_with_prior
from prolip.demo.suite.results import DecisionFigures
from prolip.metrics.statistics import bootstrap, mean, percentile_interval
from prolip.pretrained.classify import Similarity, weigh


@pytest.fixture
def decisions(emoji_results: EmojiResults) -> DecisionFigures:
    assert emoji_results.decisions is not None
    return emoji_results.decisions


def test_figures_of_all_sets_are_the_mean_of_the_sets(decisions: DecisionFigures) -> None:
    together, *each = decisions.sets
    assert [one.name for one in decisions.sets] == ["", "test-openmoji", "test-goog"]
    assert together.num_pictures == sum(one.num_pictures for one in each) == 72
    for name in ("right", "covered", "size", "answered"):
        values = [getattr(one, name).value for one in each]
        assert getattr(together, name).value == pytest.approx(sum(values) / 2)
        assert getattr(together, name).low <= getattr(together, name).value <= getattr(together, name).high
    assert 1 <= together.size.value <= decisions.num_labels == 3
    assert decisions.num_fitted + decisions.num_held == 36


def test_curves_and_examples_use_the_same_images(decisions: DecisionFigures) -> None:
    together, first = decisions.sets[0], decisions.sets[1]
    for curve in decisions.risk:
        assert curve.answered[-1] == 1
        assert curve.wrong[-1] == pytest.approx(1 - together.right.value)
    probability, variance = (curve.auroc.value for curve in decisions.risk)
    assert decisions.auroc_difference.value == pytest.approx(variance - probability, nan_ok=True)
    own, scaled = decisions.reliability
    assert sum(own.accuracy) == pytest.approx(sum(scaled.accuracy))  # a temperature changes no answer
    assert own.confidence != scaled.confidence
    examples = decisions.examples
    assert [one.probability for one in examples] == sorted((one.probability for one in examples), reverse=True)
    assert all(one.set_name == first.name for one in examples)
    assert all(one.label_set for one in examples)


def test_intervals_resample_emoji() -> None:
    items = torch.arange(8).double()
    one = _mean(torch.zeros(8, dtype=torch.int64), items)
    assert one.value == one.low == one.high == 3.5
    alone = _mean(torch.arange(8) + 3, items)
    expected = bootstrap(mean, items, num_resamples=400)
    assert (alone.value, alone.low, alone.high) == pytest.approx(expected)
    value, draws = _draws(mean, torch.arange(8) + 3, items)
    assert percentile_interval(value, draws) == pytest.approx(expected)
    assert _mean(torch.arange(8), items, among=items > 5).value == 6.5
    nothing = _mean(torch.arange(8), items, among=items > 7)
    assert math.isnan(nothing.value)
    assert math.isnan(nothing.low)


def test_a_run_is_opened_with_its_calibration(tmp_path: Path) -> None:
    run, data = tmp_path / "run", tmp_path / "data"
    data.mkdir()
    counts = {f"{split}-{design}": 24 for split in ("test", "val") for design in ("openmoji", "goog", "twtr")}
    write_emoji(data, {**counts, "design-twtr": 30})
    write_run(run, data / "tokenizer.json", context_length=20)
    results = evaluate(run, data, run / "eval.json")
    assert results.decisions is not None
    assert [one.num_pictures for one in results.decisions.sets] == [72, 24, 24, 24]
    assert results.decisions.num_fitted + results.decisions.num_held == 72
    model = prolip.load(run, device="cpu")
    assert model.calibration is not None
    labels = model.calibration.labels
    assert labels == ["animals and nature", "food and drink", "travel and places"]
    found = model.classify([encoded_image(0), encoded_image(1)], labels, guarantee=0.9, max_error=0.2, progress=False)
    assert found.label_sets is not None
    # A calibration that is there stays, and one of other weights does not.
    save_calibration(dataclasses.replace(model.calibration, seed=7), run / CALIBRATION_FILE)
    keep_calibration(prolip.load(run, device="cpu"), model.calibration)
    assert load_calibration(run / CALIBRATION_FILE).seed == 7
    other = model.calibration.subject._replace(fingerprint="of others")
    save_calibration(dataclasses.replace(model.calibration, subject=other), run / CALIBRATION_FILE)
    keep_calibration(prolip.load(run, device="cpu"), model.calibration)
    written = load_calibration(run / CALIBRATION_FILE)
    assert (written.subject, written.seed) == (model.calibration.subject, model.calibration.seed)
    # The page's own figures of the same images: sets and probabilities are those of `classify`.
    first = results.decisions.examples[0]
    again = model.classify(encoded_image(int(first.key[-3:])), labels, guarantee=0.9, progress=False)
    assert again.label_sets == [first.label_set]
    assert float(again.probabilities.max()) == pytest.approx(first.probability, rel=1e-4)


def test_the_prior_has_the_frequencies_of_the_groups(emoji_sets: list[ImageSet]) -> None:
    """The suite with the trained emoji's frequencies, and decisions with those of a calibration, on uneven groups."""
    _, images, captions = figures(emoji_sets, 1.0, 1)
    prompts, similarity = ClassPrompts([one for some in emoji_sets for one in some.samples]), Similarity(20.0, None)
    first = emoji_sets[0]
    seen = images[first.name]
    alone = weigh(seen, prompts.gaussian("group", captions), None, similarity).logits
    groups = prompts.labels("group", first.samples)
    uneven = [sample for sample, group in zip(first.samples, groups.tolist(), strict=True) if group == 0]
    uneven += [first.samples[int((groups == group).nonzero()[0])] for group in (1, 2)]
    shares = torch.tensor(label_shares(prompts.labels("group", uneven), 3))
    assert shares[0] > 0.6
    found = logits_with_prior("group", seen, captions, prompts, Trained(similarity, uneven))
    torch.testing.assert_close(found.softmax(dim=1), (alone + shares.log()).softmax(dim=1))

    labelled = LabelledImages(first.name, seen, first.samples)
    even = calibrate_groups([labelled], captions, prompts, similarity, "made up")
    tilted = dataclasses.replace(even, prior=[1e-15, 1e-15, 1.0])  # every answer is the last group
    decided = measure_decisions(tilted, [labelled], captions, prompts, similarity)
    assert decided.sets[0].right.value == pytest.approx(float((groups == 2).double().mean()))
    own, calibrated = decided.reliability
    assert own.nll.value < 1 < calibrated.nll.value
