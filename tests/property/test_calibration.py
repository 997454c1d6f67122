"""Guarantees over a thousand random splits: coverage of label sets, and limits of errors."""

import math

import torch
import torch.nn.functional as F

from prolip.calibration.abstain import abstention_threshold, threshold_order
from prolip.calibration.calibration import score_labels
from prolip.calibration.conformal import class_thresholds, conformal_threshold
from prolip.gaussian import Gaussian
from prolip.inference.classify import Similarity, weigh

SPLITS, CALIBRATION, ITEMS, LABELS = 1000, 200, 1000, 6


def population(seed=0):
    """Probabilities of a model that is too sure, and labels: the guarantees need no good probabilities."""
    draws = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(ITEMS, LABELS, generator=draws, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=draws)[:, 0]
    return (2.5 * logits).softmax(dim=1), labels


def splits(seed=1):
    """Random orders of the items, i64 [SPLITS, ITEMS]; the first `CALIBRATION` of each calibrate."""
    draws = torch.Generator().manual_seed(seed)
    return torch.rand(SPLITS, ITEMS, generator=draws).argsort(dim=1)


def check_coverage(scores, labels):
    """Over all splits, the threshold of some items contains the right label of the others as often as promised."""
    drawn = scores.gather(1, labels[:, None])[:, 0][splits()]
    for guarantee in (0.8, 0.9, 0.95):
        found = [conformal_threshold(some, guarantee) for some in drawn[:, :CALIBRATION]]
        threshold = torch.tensor(found, dtype=torch.float64)
        coverage = float((drawn[:, CALIBRATION:] <= threshold[:, None]).double().mean())
        assert abs(coverage - guarantee) < 0.01, (guarantee, coverage)


def test_label_sets_contain_the_label_as_often_as_promised():
    probabilities, labels = population()
    check_coverage(1 - probabilities, labels)


def test_sets_of_the_sampled_distance_contain_the_label_as_often_as_promised():
    """Images of different variances, and labels that are drawn by probabilities other than the model's."""
    draws = torch.Generator().manual_seed(5)
    images = Gaussian(
        F.normalize(torch.randn(ITEMS, 16, generator=draws), dim=1), torch.randn(ITEMS, 16, generator=draws) - 3
    )
    prompts = Gaussian(
        F.normalize(torch.randn(LABELS, 1, 16, generator=draws), dim=2), torch.randn(LABELS, 1, 16, generator=draws) - 3
    )
    evidence = weigh(images, prompts, None, Similarity(20.0, None))
    labels = torch.multinomial((evidence.logits / 5).softmax(dim=1), 1, generator=draws)[:, 0]
    scores = score_labels(evidence, "csd", 1.0)
    between = (images.mean[:, None] - prompts.mean[:, 0]).square().sum(2) + images.total_var[:, None]
    torch.testing.assert_close(scores, (between + prompts.total_var.T).double(), rtol=1e-4, atol=1e-4)
    check_coverage(scores, labels)


def test_the_guarantee_holds_for_every_label_with_enough_items():
    """One label is hard. The threshold of all items fails it; its own keeps the promise."""
    probabilities, labels = population()
    right = 1 - probabilities.gather(1, labels[:, None])[:, 0] + 2.0 * (labels == 0)
    own, common = [], []
    for order in splits()[:200]:
        some, rest = order[:CALIBRATION], order[CALIBRATION:]
        found = class_thresholds(right[some], labels[some], LABELS, 0.9)
        assert found.basis[0] == "class"
        hard = right[rest][labels[rest] == 0]
        own.append((hard <= found.value[0]).double().mean())
        common.append((hard <= conformal_threshold(right[some], 0.9)).double().mean())
    assert abs(float(torch.stack(own).mean()) - 0.9) < 0.02
    assert float(torch.stack(common).mean()) < 0.7


def test_the_error_limit_is_exceeded_no_more_often_than_allowed():
    """Confidence u is uniform. An answer is wrong with probability (1 - u)^2: above t, a share (1 - t)^2 / 3 is."""
    draws = torch.Generator().manual_seed(4)
    limit, delta, answered, broken = 0.1, 0.1, 0, 0
    for _ in range(SPLITS):
        confidence = torch.rand(300, generator=draws, dtype=torch.float64)
        correct = torch.rand(300, generator=draws, dtype=torch.float64) > (1 - confidence).square()
        order = threshold_order(confidence[:100], correct[:100], limit)
        found = abstention_threshold(confidence[100:], correct[100:], order, limit, delta=delta)
        answered += found.answered > 0
        broken += found.answered > 0 and (1 - found.threshold) ** 2 / 3 > limit
    assert answered > SPLITS / 2, "else the test says nothing"
    assert 0 < broken / SPLITS <= delta + 3 * math.sqrt(delta * (1 - delta) / SPLITS)
