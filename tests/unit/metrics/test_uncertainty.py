"""Uncertainty against accuracy, and similarity under uncertainty, against tables and sampling."""

import math

import pytest
import torch
import torch.nn.functional as F
from tests.support.refusals import refusal_of

from prolip.gaussian import Gaussian
from prolip.metrics.uncertainty import (
    more_uncertain,
    similarity_std,
    uncertainty_bins,
)

T = torch.tensor
DRAWS = torch.Generator().manual_seed(0)


def test_bins_of_a_hand_made_table():
    """Sorted by uncertainty the answers are 1 1 | 1 0 | 0 0, and the most uncertain one is dropped."""
    bins = uncertainty_bins(T([0.7, 0.1, 0.4, 0.2, 0.3, 0.6, 0.5]), T([1, 1, 0, 1, 1, 0, 0]), 3)
    assert bins.accuracy == [1.0, 0.5, 0.0]
    assert bins.mean_uncertainty == pytest.approx([0.15, 0.35, 0.55])
    assert (bins.bin_size, bins.num_dropped) == (2, 1)
    assert bins.pearson == pytest.approx(-1.0)


def test_bins_do_not_depend_on_the_order_of_equally_uncertain_items():
    """Data sets are often sorted by class, and some classes are easier than others."""
    correct = torch.arange(40) < 20
    assert math.isnan(uncertainty_bins(torch.zeros(40), correct, 10).pearson)
    uncertainty = torch.randint(3, (40,), generator=DRAWS).double()
    order = torch.randperm(40, generator=DRAWS)
    first, second = (uncertainty_bins(uncertainty[some], correct[some], 4) for some in (slice(None), order))
    assert first.accuracy == pytest.approx(second.accuracy)
    assert first.mean_uncertainty == second.mean_uncertainty


def test_bins_need_enough_items_and_numbers():
    with refusal_of("num_bins"):
        uncertainty_bins(torch.rand(9), torch.ones(9), 10)
    for uncertainty, correct in ((torch.rand(20), torch.ones(30)), (T([0.1, math.nan]), T([1, 0]))):
        with pytest.raises(ValueError, match="uncertainty"):
            uncertainty_bins(uncertainty, correct, 2)


def test_pairs_are_compared_and_ties_count_half():
    assert more_uncertain(T([3.0, 1.0, 2.0]), T([2.0, 2.0, 2.0])).tolist() == [1, 0, 0.5]


def test_moments_of_similarities_equal_sampled_ones():
    noise = torch.Generator().manual_seed(0)
    mean = F.normalize(torch.randn(2, 64, generator=noise, dtype=torch.float64), dim=1)
    pair = Gaussian(mean, torch.randn(2, 64, generator=noise, dtype=torch.float64) * 0.5 - 6)
    draws = pair.mean + pair.var.sqrt() * torch.randn(40_000, 2, 64, generator=noise, dtype=torch.float64)
    dots = (draws[:, 0] * draws[:, 1]).sum(-1)
    image, text = pair.rows(slice(0, 1)), pair.rows(slice(1, 2))
    assert float(similarity_std(image, text)) == pytest.approx(float(dots.std()), rel=0.02)
