"""Uncertainty scores against their definitions."""

import math

import pytest
import torch
import torch.nn.functional as F

from prolip.gaussian import Gaussian
from prolip.metrics.uncertainty_scores import (
    expected_probabilities,
    logit_scores,
    neighbour_distance,
    risk_curve,
)


def test_scores_of_hand_made_logits():
    found = logit_scores(torch.tensor([[0.0, math.log(3.0), 0.0], [5.0, 5.0, -math.inf]]))
    expected = {
        "max_probability": [0.4, 0.5],
        "margin": [0.6, 1.0],
        "entropy": [-0.6 * math.log(0.6) - 0.4 * math.log(0.2), math.log(2)],
        "energy": [-math.log(5), -5 - math.log(2)],
    }
    assert {name: score.tolist() for name, score in found.items()} == {
        name: pytest.approx(values) for name, values in expected.items()
    }
    assert logit_scores(torch.ones(2, 1))["margin"].tolist() == [0, 0]


def test_expected_probabilities_are_close_to_sampled_ones():
    draws = torch.Generator().manual_seed(0)
    images, classes = (
        Gaussian(
            F.normalize(torch.randn(count, 8, generator=draws, dtype=torch.float64), dim=-1),
            torch.full((count, 8), math.log(0.01), dtype=torch.float64),
        )
        for count in (5, 4)
    )
    a, b = (
        side.mean + 0.1 * torch.randn(4000, *side.mean.shape, generator=draws, dtype=torch.float64)
        for side in (images, classes)
    )
    sampled = (5.0 * a @ b.transpose(1, 2)).softmax(dim=2).mean(dim=0)
    assert float((expected_probabilities(images, classes, 5.0) - sampled).abs().mean()) < 0.02
    points = expected_probabilities(Gaussian.point(images.mean), Gaussian.point(classes.mean), 5.0)
    torch.testing.assert_close(points, (5.0 * images.mean @ classes.mean.T).softmax(dim=1))


def test_neighbour_distances_do_not_depend_on_blocks(monkeypatch):
    query = F.normalize(torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), dim=-1)
    expected = {2: [1 - math.sqrt(0.5), 1.0], 9: [1.0, 1.0]}
    for block in (2**24, 1):
        monkeypatch.setattr("prolip.metrics.uncertainty_scores._BLOCK", block)
        for k, values in expected.items():
            assert neighbour_distance(query, torch.eye(3), k).tolist() == pytest.approx(values)


def test_the_order_of_equal_scores_has_no_effect_on_the_curve():
    for correct in ([1, 1, 0, 1], [0, 1, 1, 1]):
        answered, wrong = risk_curve(torch.tensor([0.1, 0.1, 0.1, 0.9]), torch.tensor(correct))
        assert answered.tolist() == [0.25, 0.5, 0.75, 1.0]
        assert wrong.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1 / 4])
