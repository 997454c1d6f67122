"""A planted scale and bias are found again."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tests.support.frozen_pairs import made_up

from prolip.adapt.pairs import PairRows
from prolip.adapt.temperature import MAX_SCALE, MIN_SCALE, fit_logits, sigmoid_loss, softmax_loss, standard_error
from prolip.gaussian import Gaussian
from prolip.losses.ppcl import ppcl_reference

BATCH = 64
KAPPA = 5.0


def pairs(image: torch.Tensor, text: torch.Tensor) -> PairRows:
    return PairRows(image, text, None, None)


@pytest.fixture(scope="module")
def planted() -> list[PairRows]:
    """Images everywhere on a circle, each text around its image by von Mises: exp(kappa cos) / (2 pi I0(kappa)).

    Texts, too, are everywhere. So the logarithm of p(text | image) / p(text), which both losses estimate, is
    kappa cos - ln I0(kappa); SigLIP's also counts BATCH - 1 wrong texts for a right one.
    """
    random = np.random.default_rng(0)
    batches = []
    for _ in range(150):
        angle = random.uniform(-math.pi, math.pi, BATCH)
        both = (angle, angle + random.vonmises(0, KAPPA, BATCH))
        batches.append(pairs(*(torch.tensor(np.stack([np.cos(one), np.sin(one)], 1)) for one in both)))
    return batches


def test_the_softmax_recovers_a_planted_scale(planted: list[PairRows]) -> None:
    found = fit_logits(planted, with_bias=False)
    assert found.scale == pytest.approx(KAPPA, rel=0.04)
    assert found.bias is None


def test_the_sigmoid_recovers_a_planted_scale_and_bias(planted: list[PairRows]) -> None:
    found = fit_logits(planted, with_bias=True)
    assert found.scale == pytest.approx(KAPPA, rel=0.04)
    assert found.bias == pytest.approx(-math.log(BATCH - 1) - math.log(float(np.i0(KAPPA))), abs=0.2)


@pytest.mark.parametrize("with_bias", [False, True])
def test_the_fitted_scale_and_bias_minimise_the_loss(with_bias: bool) -> None:
    batches = [pairs(*made_up(50, 6, noise=1.0, seed=seed)) for seed in range(2)]
    found = fit_logits(batches, with_bias=with_bias)
    measure = sigmoid_loss if with_bias else softmax_loss

    def loss(scale: float, bias: float) -> float:
        both = (torch.tensor(value, dtype=torch.float64) for value in (scale, bias))
        scale_, bias_ = both
        sums = [measure(batch.image.double() @ batch.text.double().T, scale_, bias_) for batch in batches]
        return float(torch.stack(sums).sum()) / 100

    bias = found.bias or 0.0
    assert found.loss == pytest.approx(loss(found.scale, bias))
    around = [(1.02 * found.scale, bias), (0.98 * found.scale, bias)]
    around += [(found.scale, bias + 0.05), (found.scale, bias - 0.05)] if with_bias else []
    assert all(loss(*one) > found.loss for one in around)


def test_the_sigmoid_loss_equals_ppcl_on_points() -> None:
    image, text = (one.double() for one in made_up(9, 5))
    scale, bias = torch.tensor(7.0, dtype=torch.float64), torch.tensor(-3.0, dtype=torch.float64)
    expected = ppcl_reference(Gaussian.point(image), Gaussian.point(text[None]), scale, bias)
    torch.testing.assert_close(sigmoid_loss(image @ text.T, scale, bias) / 9, expected)


def test_pairs_without_errors_get_a_large_scale() -> None:
    image = torch.eye(4)
    found = fit_logits([pairs(image, image)], with_bias=False)
    assert 10 < found.scale <= MAX_SCALE
    assert found.loss < 1e-4


@pytest.mark.parametrize("with_bias", [False, True])
def test_the_standard_error_is_the_spread_of_fitted_scales(with_bias: bool) -> None:
    found = [fit_logits([pairs(*made_up(60, 16, noise=1.0, seed=seed))], with_bias=with_bias) for seed in range(60)]
    spread = float(np.std([one.scale for one in found]))
    errors = []
    for seed, one in enumerate(found):
        image, text = made_up(60, 16, noise=1.0, seed=seed)
        errors.append(standard_error([image.double() @ text.double().T], one))
    assert float(np.median(errors)) == pytest.approx(spread, rel=0.3)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(("noise", "warned"), [(0.3, True), (1.0, False)])
def test_a_scale_from_pairs_without_errors_is_called_a_guess(
    with_bias: bool, noise: float, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Such a scale is far too large for new pairs, where the model errs."""
    found = fit_logits([pairs(*made_up(32, 16, noise=noise, seed=1))], with_bias=with_bias)
    assert ("is a guess, with a standard error" in caplog.text) == warned
    new = [pairs(*made_up(32, 16, noise=noise, seed=seed)) for seed in range(2, 20)]
    best = fit_logits(new, with_bias=with_bias)
    measure = sigmoid_loss if with_bias else softmax_loss
    scale, bias = (torch.tensor(value or 0.0, dtype=torch.float64) for value in found[:2])
    sums = [measure(one.image.double() @ one.text.double().T, scale, bias) for one in new]
    assert (float(torch.stack(sums).sum()) / (32 * 18) > 1.3 * best.loss) == warned


@pytest.mark.parametrize("with_bias", [False, True])
def test_images_and_texts_that_do_not_match_are_warned_about(with_bias: bool, caplog: pytest.LogCaptureFixture) -> None:
    image = torch.eye(4)
    found = fit_logits([pairs(image, -image)], with_bias=with_bias)
    assert found.scale == MIN_SCALE
    assert "do their rows match?" in caplog.text
    if with_bias:  # the best for that scale: as many positives are predicted as there are
        assert found.bias is not None
        predicted = (found.scale * (image @ -image.T) + found.bias).sigmoid().sum()
        assert float(predicted) == pytest.approx(4.0, rel=1e-3)
