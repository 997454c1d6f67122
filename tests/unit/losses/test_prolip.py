"""The loss and its terms against their definitions, and settings that are refused."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, strategies as st
from tests.support.refusals import refusal_of
from torch.distributions import Normal, kl_divergence

from prolip.distributed import Peers
from prolip.gaussian import Gaussian
from prolip.losses import ProlipLoss
from prolip.losses.config import LossConfig
from prolip.models import ProLIPOutput

BATCH, MASKED, SLOTS, DIM = 6, 2, 3, 5


def gaussian(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(*shape, DIM, generator=generator, dtype=torch.float64)
    log_var = torch.randn(*shape, DIM, generator=generator, dtype=torch.float64) - 4
    return Gaussian(F.normalize(mean, dim=-1), log_var)


def pairs(image, text, scale, bias):
    """The sigmoid loss of every pair of each slot, summed over texts, averaged over slots and images."""
    similarity = image.mean @ text.mean.mT - (image.var.sum(-1)[:, None] + text.var.sum(-1)[:, None]) / 2
    probability = (scale * similarity + bias).sigmoid()
    eye = torch.eye(len(image.mean)).bool()
    return -probability.where(eye, 1 - probability).log().sum() / (len(text.mean) * len(image.mean))


def included(specific, general, config):
    a, b, square = specific.var, general.var, (specific.mean - general.mean).square()
    distance = square * (b - a) / ((a + 2 * b) * (2 * a + b))
    ratio = ((2 * a + b) / (a + 2 * b)).log()
    score = (b / a).log() + ratio / 2 + math.exp(config.inclusion_eps) * distance
    if config.inclusion_form == "exact":
        score = ((b / a).log() + ratio) / 2 + distance
    return -(config.inclusion_scale * score).sigmoid().log().mean()


def divergence(gaussian, config):
    std = gaussian.var ** (0.25 if config.vib_form == "official" else 0.5)
    return kl_divergence(Normal(gaussian.mean, std), Normal(torch.zeros_like(std), 1.0)).mean()


WEIGHTS = st.sampled_from([0.0, 0.3, 2.0])
CONFIGS = st.builds(
    LossConfig,
    contrast=st.sampled_from(["ppcl", "siglip"]),
    ppcl_weight=WEIGHTS,
    siglip_weight=WEIGHTS,
    variance_scale=st.sampled_from([None, 1.5]),
    inclusion_weight=WEIGHTS,
    masked_inclusion_weight=WEIGHTS,
    vib_weight=WEIGHTS,
    inclusion_form=st.sampled_from(["official", "exact"]),
    inclusion_scale=st.sampled_from([0.5, 2.0]),
    inclusion_eps=st.sampled_from([-2.0, 0.0]),
    vib_form=st.sampled_from(["official", "exact"]),
)


@given(CONFIGS, st.sampled_from([None, 0, MASKED]))
def test_each_term_is_its_weight_times_its_definition(config, masked):
    image, text = gaussian(BATCH, seed=0), gaussian(SLOTS, BATCH, seed=1)
    seen = None if masked is None else (gaussian(masked, seed=2), gaussian(SLOTS, masked, seed=3))
    units, dtype = (0.02, 0.05), torch.float64
    output = ProLIPOutput(
        image, text, *(seen or (None, None)), torch.tensor(10.0).to(dtype), torch.tensor(-5.0).to(dtype)
    )
    points = Gaussian.point(image.mean), Gaussian.point(text.mean)
    contrast = pairs(*(points if config.contrast == "siglip" else (image, text)), 10.0, -5.0)
    if config.variance_scale is not None:
        scaled = [
            Gaussian(one.mean, one.log_var - math.log(unit)) for one, unit in zip((image, text), units, strict=True)
        ]
        contrast = contrast + pairs(*scaled, config.variance_scale, config.variance_scale - math.log(BATCH))
    expected = [
        config.ppcl_weight * contrast + config.siglip_weight * pairs(*points, 10.0, -5.0),
        config.inclusion_weight * included(image, text, config),
        *[torch.tensor(0.0).to(dtype)] * 2,
        config.vib_weight * (divergence(image, config) + divergence(text, config)),
    ]
    if seen and masked:
        for place, (whole, part) in enumerate(zip((image[:masked], text.rows(slice(masked))), seen, strict=True), 2):
            expected[place] = config.masked_inclusion_weight * included(whole, part, config)
    terms = ProlipLoss(config, Peers(), variance_units=units)(output)
    torch.testing.assert_close(torch.stack(terms), torch.stack([torch.stack(expected).sum(), *expected]))


def test_the_variances_own_loss_moves_no_mean_and_the_other_no_variance():
    leaves = [leaf.requires_grad_() for leaf in (*gaussian(BATCH, seed=0), *gaussian(SLOTS, BATCH, seed=1))]
    scale, bias = (torch.tensor(value, dtype=torch.float64) for value in (10.0, -5.0))
    output = ProLIPOutput(Gaussian(*leaves[:2]), Gaussian(*leaves[2:]), None, None, scale, bias)
    alone = {"inclusion_weight": 0.0, "masked_inclusion_weight": 0.0, "vib_weight": 0.0}

    def gradients(**changes):
        total = ProlipLoss(LossConfig(**(alone | changes)), Peers())(output).total
        return list(torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True))

    one, other, shared = gradients(variance_scale=1.5), gradients(variance_scale=3.0), gradients()
    for place in (0, 2):  # means
        torch.testing.assert_close(one[place], shared[place])
        assert not torch.allclose(one[place + 1], other[place + 1])
        assert not torch.allclose(one[place + 1], shared[place + 1])


def test_a_missing_bias_or_text_is_refused():
    image, text = gaussian(BATCH, seed=0), gaussian(SLOTS, BATCH, seed=1)
    given = ProLIPOutput(image, text, None, None, torch.tensor(10.0), None)
    with refusal_of("model.init_logit_bias"):
        ProlipLoss(LossConfig(), Peers())(given)
    fewer = given._replace(text=Gaussian(given.text.mean[:, 1:], given.text.log_var[:, 1:]))
    with pytest.raises(ValueError, match="texts: "):
        ProlipLoss(LossConfig(), Peers())(fewer)
