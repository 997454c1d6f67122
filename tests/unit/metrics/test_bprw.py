"""Prompt re-weighting: voters, likelihoods, and settings that must not change the result."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from tests.support.refusals import refusal_of

from prolip.errors import UserError
from prolip.gaussian import Gaussian
from prolip.metrics.bprw import (
    Observations,
    component_vars,
    gather_observations,
    labelled_images,
    log_likelihoods,
    nearest_images,
    reweight_prompts,
)
from prolip.metrics.config import BprwConfig

CLASSES, PROMPTS, DIM, IMAGES = 4, 5, 16, 60


def world(seed=0, dtype=torch.float64):
    """Prompts near their class, images near their class, and the images' classes."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    centres = F.normalize(normal(CLASSES, DIM), dim=-1)
    labels = torch.arange(IMAGES) % CLASSES
    prompts = Gaussian(
        F.normalize(centres[:, None] + 0.1 * normal(CLASSES, PROMPTS, DIM), dim=-1),
        -5 + 0.3 * normal(CLASSES, PROMPTS, DIM),
    )
    images = Gaussian(F.normalize(centres[labels] + 0.1 * normal(IMAGES, DIM), dim=-1), -5 + 0.3 * normal(IMAGES, DIM))
    return prompts.to(dtype), images.to(dtype), labels


def assert_same(a, b, bound=0.0):
    for name in ("weights", "classifier", "variances"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), atol=bound, rtol=bound)


# ---------------------------------------------------------------------------------------------------------------------
# Who votes


def test_nearest_images_are_those_of_the_largest_product():
    prompts, images, _ = world()
    found = nearest_images(prompts, images, 7, rows_at_once=3)
    scores = prompts.mean.mean(1) @ images.mean.T
    assert torch.equal(found, scores.argsort(dim=1, descending=True)[:, :7])
    with refusal_of("num_neighbors"):
        nearest_images(prompts, images, 61)


@settings(max_examples=50)
@given(labels=st.lists(st.integers(-1, 3), max_size=30), count=st.integers(1, 6))
def test_few_shot_images_are_the_first_of_each_class(labels, count):
    expected = [[i for i, label in enumerate(labels) if label == c][:count] for c in range(4)]
    if not all(expected):
        with pytest.raises(UserError):
            labelled_images(torch.tensor(labels, dtype=torch.int64), 4, count)
        return
    found = labelled_images(torch.tensor(labels), 4, count)
    assert [[i for i in row if i >= 0] for row in found.tolist()] == expected
    assert found.shape[1] == max(map(len, expected))


# ---------------------------------------------------------------------------------------------------------------------
# How likely


def test_log_likelihoods_are_those_of_normal_densities():
    prompts, _, _ = world()
    points = torch.randn(CLASSES, 9, DIM, dtype=torch.float64)
    seen = Observations(points, None, torch.ones(CLASSES, 9))
    density = torch.distributions.Normal(prompts.mean[:, None], prompts.var.sqrt()[:, None])
    expected = density.log_prob(points[:, :, None]).sum(-1)
    torch.testing.assert_close(log_likelihoods(seen, prompts.mean, prompts.var), expected)


def test_the_expected_log_likelihood_is_the_mean_over_many_draws():
    prompts, images, _ = world()
    voters = nearest_images(prompts, images, 3)
    draws = 20_000
    noise = torch.randn(CLASSES, 3, draws, DIM, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    var = component_vars(prompts.var, BprwConfig())
    drawn = log_likelihoods(gather_observations(prompts, images, voters, noise), prompts.mean, var)
    drawn = drawn.reshape(CLASSES, 3, draws, PROMPTS)
    exact = log_likelihoods(gather_observations(prompts, images, voters, None), prompts.mean, var)
    error = (drawn.mean(2) - exact).abs() / (drawn.std(2) / math.sqrt(draws))
    assert error.max() < 5  # standard errors


def test_float32_distinguishes_similar_prompts():
    """Prompts 1e-3 apart, variances e^-10: plain squares in float32 would be off by about 0.01."""
    generator = torch.Generator().manual_seed(0)
    centre = F.normalize(torch.randn(2, 1, 256, generator=generator, dtype=torch.float64), dim=-1)
    mean = centre + 1e-3 * torch.randn(2, 8, 256, generator=generator, dtype=torch.float64)
    var = torch.full_like(mean, math.exp(-10))
    points = centre + 1e-3 * torch.randn(2, 20, 256, generator=generator, dtype=torch.float64)
    seen = Observations(points, None, torch.ones(2, 20))
    exact = log_likelihoods(seen, mean.float().double(), var)
    single = log_likelihoods(Observations(points.float(), None, seen.counts), mean.float(), var.float()).double()
    difference = (single - single[..., :1]) - (exact - exact[..., :1])
    assert difference.abs().max() < 3e-3


def test_the_draws_of_absent_images_do_not_count():
    generator = torch.Generator().manual_seed(0)
    images = Gaussian(torch.arange(5.0)[:, None].expand(5, 2), torch.zeros(5, 2))
    voters, noise = torch.tensor([[3, -1, 4], [2, 1, 0]]), 1e-3 * torch.randn(2, 3, 4, 2, generator=generator)
    seen = gather_observations(images, images, voters, noise)
    drawn = [[image for image in row.tolist() for _ in range(4)] for row in voters]
    assert seen.counts.tolist() == [[float(image >= 0) for image in row] for row in drawn]
    there = seen.counts > 0
    assert torch.equal(seen.mean.mean(-1).round()[there], torch.tensor(drawn)[there].float())


# ---------------------------------------------------------------------------------------------------------------------
# The whole


@pytest.mark.parametrize("num_draws", [1, 7])
def test_points_have_the_same_weights_drawn_and_expected(num_draws):
    """Every draw of a point is the point, so an expected observation counts as `num_draws` samples."""
    prompts, images, labels = world()
    rules = [BprwConfig(num_draws=num_draws, alpha=3.0, observations=kind) for kind in ("draws", "expected")]
    for chosen in (None, labels):
        assert_same(
            *(reweight_prompts(prompts, Gaussian.point(images.mean), rule, labels=chosen) for rule in rules), 1e-9
        )


def test_classifier_and_variances_equal_the_weighted_sums():
    prompts, images, _ = world()
    found = reweight_prompts(prompts, images, BprwConfig())
    assert found.weights.shape == (CLASSES, PROMPTS)
    torch.testing.assert_close(found.weights.sum(-1), torch.ones(CLASSES, dtype=torch.float64))
    torch.testing.assert_close(found.classifier, (found.weights[..., None] * prompts.mean).sum(1))
    torch.testing.assert_close(found.variances, (found.weights[..., None] ** 2 * prompts.var).sum(1))


def test_the_prompt_that_generated_the_images_gets_the_weight():
    prompts, _, _ = world()
    chosen = torch.tensor([3, 0, 4, 2])
    near = prompts.mean[torch.arange(CLASSES), chosen].repeat_interleave(10, dim=0)
    images = Gaussian(F.normalize(near + 0.01 * torch.randn_like(near), dim=-1), torch.full_like(near, -9))
    for observations in ("draws", "expected"):
        rule = BprwConfig(observations=observations, alpha=1.5)
        found = reweight_prompts(prompts, images, rule)
        assert torch.equal(found.weights.argmax(1), chosen)


@pytest.mark.parametrize("observations", ["draws", "expected"])
def test_chunks_and_half_precision_do_not_change_the_weights(observations, monkeypatch):
    prompts, images, _ = world(dtype=torch.bfloat16)
    rule = BprwConfig(num_neighbors=6, num_draws=3, observations=observations)
    half = reweight_prompts(prompts, images, rule)
    assert half.weights.dtype == torch.float32
    assert_same(half, reweight_prompts(prompts.to(torch.float32), images.to(torch.float32), rule))
    monkeypatch.setattr("prolip.metrics.bprw._CLASSES_AT_ONCE", 1)
    steps = []
    assert_same(half, reweight_prompts(prompts, images, rule, on_progress=steps.append), 1e-5)
    assert steps == [1] * CLASSES


@pytest.mark.parametrize(
    ("field", "value"),
    [("alpha", 0.0), ("alpha", math.inf), ("num_neighbors", 0), ("var_floor", -1.0), ("var_multiplier", math.nan),
     ("seed", 2**64), ("observations", "other"), ("multiplier_form", "other")],
)  # fmt: skip
def test_settings_out_of_range_name_their_field(field, value):
    with refusal_of(field):
        BprwConfig(**{field: value})
