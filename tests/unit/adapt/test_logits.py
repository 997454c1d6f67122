"""A planted scale and bias are found again."""

import math

import numpy as np
import pytest
import torch
from tests.support.frozen_pairs import made_up

from prolip.adapt.logits import MAX_SCALE, MIN_SCALE, fit_logits, sigmoid_loss
from prolip.adapt.pairs import PairRows
from prolip.gaussian import Gaussian
from prolip.losses.ppcl import ppcl_reference

BATCH = 64
KAPPA = 5.0


def pairs(image, text):
    return PairRows(image, text, None, None)


def test_a_planted_scale_and_bias_are_recovered():
    """Images everywhere on a circle, each text around its image by von Mises: exp(kappa cos) / (2 pi I0(kappa)).

    The logarithm of p(text | image) / p(text) is kappa cos - ln I0(kappa); the loss also counts BATCH - 1
    wrong texts for a right one.
    """
    random = np.random.default_rng(0)
    planted = []
    for _ in range(150):
        angle = random.uniform(-math.pi, math.pi, BATCH)
        both = (angle, angle + random.vonmises(0, KAPPA, BATCH))
        planted.append(pairs(*(torch.tensor(np.stack([np.cos(one), np.sin(one)], 1)) for one in both)))
    found = fit_logits(planted)
    assert found.scale == pytest.approx(KAPPA, rel=0.04)
    assert found.bias == pytest.approx(-math.log(BATCH - 1) - math.log(float(np.i0(KAPPA))), abs=0.2)
    logits = torch.tensor([found.scale, found.bias], dtype=torch.float64, requires_grad=True)
    loss = torch.stack([sigmoid_loss(one.image @ one.text.T, logits) for one in planted]).sum() / (150 * BATCH)
    assert found.loss == pytest.approx(float(loss.detach()))
    (slope,) = torch.autograd.grad(loss, logits)
    assert float(slope.abs().max()) < 1e-8


def test_the_sigmoid_loss_equals_ppcl_on_points():
    image, text = (one.double() for one in made_up(9, 5))
    logits = torch.tensor([7.0, -3.0], dtype=torch.float64)
    expected = ppcl_reference(Gaussian.point(image), Gaussian.point(text[None]), *logits)
    torch.testing.assert_close(sigmoid_loss(image @ text.T, logits) / 9, expected)


def test_a_scale_that_the_pairs_do_not_determine_is_a_warning(caplog):
    for noise, warned in ((1.0, False), (0.3, True)):
        found = fit_logits([pairs(*made_up(32, 16, noise=noise, seed=1))])
        assert ("is a guess" in caplog.text) == warned
        assert MIN_SCALE < found.scale <= MAX_SCALE
    image = torch.eye(4)
    found = fit_logits([pairs(image, -image)])
    assert found.scale == MIN_SCALE
    assert "do their rows match?" in caplog.text
    # The best bias for that scale: as many positives are predicted as there are.
    predicted = (found.scale * (image @ -image.T) + found.bias).sigmoid().sum()
    assert float(predicted) == pytest.approx(4.0, rel=1e-3)
