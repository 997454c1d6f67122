"""The search for the most including item, with a bound, equals the whole matrix."""

import math

import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st

from prolip.gaussian import Gaussian, official_inclusion_test_matrix
from prolip.metrics import inclusion_search as including
from prolip.metrics.inclusion_search import most_including


def gaussians(count: int, dim: int, seed: int, log_var: float, spread: float) -> Gaussian:
    noise = torch.Generator().manual_seed(seed)
    mean = F.normalize(torch.randn(count, dim, generator=noise, dtype=torch.float64), dim=1)
    return Gaussian(mean, log_var + spread * torch.randn(count, dim, generator=noise, dtype=torch.float64))


@settings(max_examples=60)
@given(
    st.integers(1, 12),
    st.integers(1, 40),
    st.integers(1, 24),
    st.integers(0, 10_000),
    st.sampled_from([0.0, 0.01, 0.3, 2.0, 9.0]),
    st.sampled_from([-12.0, -6.0, 0.0]),
)
def test_the_search_equals_the_argmax_of_the_full_matrix(count, candidates, dim, seed, spread, log_var):
    specific = gaussians(count, dim, seed, log_var - 1, spread)
    general = gaussians(candidates, dim, seed + 1, log_var, spread)
    assert most_including(specific, general).equal(official_inclusion_test_matrix(specific, general).argmax(dim=1))


def test_bounds_skip_most_pairs_of_captions_in_levels(monkeypatch):
    images = gaussians(40, 256, 0, -7, 0.3)
    levels = [gaussians(100, 256, 1 + level, -6 + 0.7 * level, 0.3) for level in range(4)]
    captions = Gaussian(torch.cat([one.mean for one in levels]), torch.cat([one.log_var for one in levels]))
    tested = []
    tests = including._tests

    def counted(*arguments: object) -> torch.Tensor:
        tested.append(len(arguments[2]))
        return tests(*arguments)

    monkeypatch.setattr(including, "_tests", counted)
    monkeypatch.setattr(including, "official_inclusion_test_matrix", None)
    single = [Gaussian(one.mean.float(), one.log_var.float()) for one in (images, captions)]
    got = most_including(*single)
    assert got.equal(official_inclusion_test_matrix(images, captions).argmax(dim=1))
    assert sum(tested) < 0.1 * 40 * 400


def test_ties_give_the_first_caption_and_points_the_full_search():
    image, caption = gaussians(3, 8, 0, -7, 0.3), gaussians(1, 8, 1, -6, 0.3)
    several = Gaussian(caption.mean.expand(5, 8), caption.log_var.expand(5, 8))
    assert most_including(image, several).tolist() == [0, 0, 0]
    points = Gaussian.point(gaussians(4, 8, 2, 0, 0).mean)
    assert math.isinf(float(points.log_var[0, 0]))
    expected = official_inclusion_test_matrix(image, points).argmax(dim=1)
    assert most_including(image, points).equal(expected)
