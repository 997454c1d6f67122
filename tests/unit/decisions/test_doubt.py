"""Scores of doubt against their definitions."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

from prolip.decisions.doubt import (
    expected_probabilities,
    fit_known,
    logit_doubts,
    neighbour_distance,
    outlier_p_values,
)
from prolip.gaussian import Gaussian


def test_doubts_of_hand_made_logits() -> None:
    logits = torch.tensor([[0.0, math.log(3.0), 0.0], [5.0, 5.0, 5.0]])
    found = logit_doubts(logits)
    assert found["max probability"].tolist() == pytest.approx([0.4, 2 / 3])
    assert found["margin"].tolist() == pytest.approx([1 - 0.4, 1.0])
    assert found["entropy"].tolist() == pytest.approx([-0.6 * math.log(0.6) - 0.4 * math.log(0.2), math.log(3)])
    assert found["energy"].tolist() == pytest.approx([-math.log(5), -5 - math.log(3)])
    assert logit_doubts(logits[:, :1])["margin"].tolist() == [0, 0]
    # A prior of 0 makes a label impossible: its logit is minus infinity, and it adds nothing to the entropy.
    impossible = logit_doubts(torch.tensor([[1.0, 1.0, -math.inf]]))
    assert impossible["entropy"].tolist() == pytest.approx([math.log(2)])


def test_expected_probabilities_are_softer_and_close_to_sampled_ones() -> None:
    draws = torch.Generator().manual_seed(0)
    images, classes = (
        Gaussian(
            F.normalize(torch.randn(count, 8, generator=draws, dtype=torch.float64), dim=-1),
            torch.full((count, 8), math.log(0.01), dtype=torch.float64),
        )
        for count in (5, 4)
    )
    found = expected_probabilities(images, classes, 5.0)
    plain = (5.0 * images.mean @ classes.mean.T).softmax(dim=1)
    assert bool((found.amax(dim=1) < plain.amax(dim=1)).all())
    a, b = (
        side.mean + 0.1 * torch.randn(4000, *side.mean.shape, generator=draws, dtype=torch.float64)
        for side in (images, classes)
    )
    sampled = (5.0 * a @ b.transpose(1, 2)).softmax(dim=2).mean(dim=0)
    assert float((found - sampled).abs().mean()) < 0.02
    points = expected_probabilities(Gaussian.point(images.mean), Gaussian.point(classes.mean), 5.0)
    torch.testing.assert_close(points, plain)


def test_mahalanobis_distance_is_in_units_of_the_spread() -> None:
    draws = torch.Generator().manual_seed(0)
    labels = torch.arange(2000) % 2
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0]], dtype=torch.float64)
    spread = torch.tensor([1.0, 0.1], dtype=torch.float64)
    known = fit_known(
        centres[labels] + spread * torch.randn(2000, 2, generator=draws, dtype=torch.float64), labels, 1e-6
    )
    found = known.distance(torch.tensor([[3.0, 0.0], [10.0, 0.3], [5.0, 0.0]]))
    assert found.tolist() == pytest.approx([9, 9, 25], rel=0.15)
    items = torch.randn(6, 2, generator=draws)
    alone, together = fit_known(items, torch.arange(6)), fit_known(items, torch.zeros(6, dtype=torch.int64))
    torch.testing.assert_close(alone.precision, together.precision, msg="the spread is that around the common centre")
    with pytest.raises(ValueError, match="at least two"):
        fit_known(torch.zeros(1, 2), torch.tensor([0]))


def test_neighbour_distances_and_p_values_of_a_hand_made_example() -> None:
    known = torch.eye(3)
    query = F.normalize(torch.tensor([[1.0, 1.0, 0.0]]), dim=-1)
    assert neighbour_distance(query, known, 2).tolist() == pytest.approx([1 - math.sqrt(0.5)])
    assert neighbour_distance(query, known, 9).tolist() == pytest.approx([1.0])
    with pytest.raises(ValueError, match="needs at least one"):
        neighbour_distance(query, known[:0])
    calibration = torch.tensor([1.0, 2.0, 3.0])
    assert outlier_p_values(torch.tensor([0.0, 2.0, 4.0]), calibration).tolist() == pytest.approx([1, 0.75, 0.25])


def test_similarities_to_known_items_are_computed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = torch.Generator().manual_seed(0)
    means, known = (F.normalize(torch.randn(count, 2, generator=draws), dim=-1) for count in (60, 16))
    whole = neighbour_distance(means, known)
    monkeypatch.setattr("prolip.decisions.doubt._BLOCK", 160)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as recorded:
        found = neighbour_distance(means, known)
    torch.testing.assert_close(found, whole)
    shapes = [torch.Size(shape) for event in recorded.events() for shape in event.input_shapes if shape]
    assert max(shape.numel() for shape in shapes) == 160
