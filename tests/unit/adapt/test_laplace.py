"""Kronecker factors against autograd, the posterior against its definition."""

import math

import pytest
import torch
import torch.nn.functional as F
from tests.support.frozen_pairs import made_up
from torch import Tensor

from prolip.adapt.laplace import (
    Factors,
    best_precision,
    fit_laplace,
    kronecker_factors,
    posterior,
)
from prolip.adapt.pairs import PairRows
from prolip.models.adapter import Adapter
from prolip.models.config import AdapterConfig

DIM = 4
SCALE = 3.0


def double_pairs(count: int, seed: int = 0) -> PairRows:
    image, text = (F.normalize(one.double(), dim=1) for one in made_up(count, DIM, noise=1.0, seed=seed))
    return PairRows(image, text, None, None)


def gauss_newton(own: Tensor, others: Tensor, bias: float | None, row: int) -> Tensor:
    """J^T L J of one row's loss by the elements of W at W = 1, from autograd, [D * D, D * D]."""

    def logits(weights: Tensor) -> Tensor:
        moved = F.normalize(weights.view(DIM, DIM) @ own[row], dim=0)
        return SCALE * (others @ moved) + (bias or 0.0)

    def loss(values: Tensor) -> Tensor:
        if bias is None:
            return values.logsumexp(0) - values[row]
        return F.softplus(values).sum() - values[row]

    identity = torch.eye(DIM, dtype=torch.float64).flatten()
    jacobian = torch.autograd.functional.jacobian(logits, identity)
    curvature = torch.autograd.functional.hessian(loss, logits(identity))
    return jacobian.T @ curvature @ jacobian


@pytest.mark.parametrize("bias", [-1.0, None])
def test_factors_are_sums_over_items_and_batches(bias):
    batches = [double_pairs(5, seed) for seed in range(2)]
    found = kronecker_factors(iter(batches), DIM, SCALE, bias)
    for place, factors in enumerate(found):
        inputs = torch.zeros(DIM, DIM, dtype=torch.float64)
        outputs = torch.zeros(DIM, DIM, dtype=torch.float64)
        for batch in batches:
            own, others = (batch.image, batch.text) if place == 0 else (batch.text, batch.image)
            for row in range(len(own)):
                whole = gauss_newton(own, others, bias, row).view(DIM, DIM, DIM, DIM)
                # The trace over inputs of B x z z^T is B |z|^2 = B.
                outputs += torch.einsum("aibi->ab", whole)
                inputs += torch.outer(own[row], own[row]) / 10
        torch.testing.assert_close(factors, Factors(inputs, outputs))


def spd(seed: int) -> Tensor:
    root = torch.randn(DIM, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return root @ root.T


def test_the_heads_variance_equals_the_posteriors():
    inputs, outputs = spd(0), spd(1)
    adapter = Adapter(AdapterConfig(method="laplace", embed_dim=DIM, has_bias=True)).double()
    found = posterior(inputs, outputs)
    adapter.image.directions.copy_(found.directions)
    adapter.image.spread.copy_(found.spread)
    z = F.normalize(torch.randn(3, DIM, dtype=torch.float64), dim=1)
    covariance = (torch.kron(outputs, inputs) + found.precision * torch.eye(DIM**2, dtype=torch.float64)).inverse()
    for row in z:
        jacobian = torch.kron(torch.eye(DIM, dtype=torch.float64), row[None])  # of W z by the elements of W
        expected = (jacobian @ covariance @ jacobian.T).diagonal()
        gaussian = adapter.image(row[None])
        torch.testing.assert_close(gaussian.var[0], expected)
        assert torch.equal(gaussian.mean[0], row)


def test_the_precision_maximises_the_evidence():
    curvature = torch.rand(DIM, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 20

    def evidence(p: float) -> float:
        return 0.5 * (DIM**2 * math.log(p) - p * DIM - float((curvature + p).log().sum()))

    best = best_precision(curvature)
    assert evidence(best) > max(evidence(0.99 * best), evidence(1.01 * best))
    assert best_precision(torch.zeros(DIM, DIM)) < 1e-20, "without data nothing is known"


def test_each_head_gets_its_towers_posterior():
    batches = [double_pairs(9, seed) for seed in range(3)]
    adapter = Adapter(AdapterConfig(method="laplace", embed_dim=DIM, has_bias=True))
    found = fit_laplace(adapter, batches, SCALE, -1.0)
    for one, head, factors in zip(
        found, (adapter.image, adapter.text), kronecker_factors(batches, DIM, SCALE, -1.0), strict=True
    ):
        expected = posterior(*factors)
        torch.testing.assert_close(one.spread, expected.spread)
        assert one.precision == pytest.approx(expected.precision)
        torch.testing.assert_close(head.directions, expected.directions.float())
        torch.testing.assert_close(head.spread, expected.spread.float())
    assert found[0].precision != found[1].precision
    assert (float(adapter.logit_scale.detach().exp()), float(adapter.logit_bias.detach())) == pytest.approx(
        (SCALE, -1.0)
    )
