"""Properties and values of the measures of Gaussians."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings, strategies as st
from tests.support.refusals import refusal_of
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from prolip.gaussian import (
    Gaussian,
    concatenate,
    csd,
    csd_logits,
    dot_products,
    inclusion_matrix,
    inclusion_score,
    kl_to_standard,
    log_integral,
    official_inclusion_score,
    official_inclusion_test,
    official_inclusion_test_matrix,
    official_kl_to_standard,
)


def some(count, dim=8, seed=0, log_var=-4.0):
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(count, dim, generator=generator, dtype=torch.float64)
    spread = torch.randn(count, dim, generator=generator, dtype=torch.float64)
    return Gaussian(mean / mean.norm(dim=-1, keepdim=True), log_var + spread)


def test_the_text_of_gaussians_is_short():
    assert repr(some(3000)).startswith("Gaussian([3000, 8], torch.float64, cpu, mean uncertainty 0.")
    assert repr(Gaussian.point(torch.empty(2, 8, device="meta"))) == "Gaussian([2, 8], torch.float32, meta)"


def test_a_point_has_no_variance():
    point = Gaussian.point(torch.ones(2, 3))
    assert torch.equal(point.var, torch.zeros(2, 3))
    assert torch.equal(point.total_var, torch.zeros(2))
    assert torch.equal(point.uncertainty, torch.zeros(2))
    assert torch.equal(csd(point, point), torch.zeros(2, 2))
    assert point.is_point
    assert not Gaussian(point.mean, torch.tensor([[-torch.inf, 0.0, 0.0], [-torch.inf] * 3])).is_point


def test_rows_flatten_and_concatenate_keep_mean_and_variance_together():
    a, b = some(3), some(2, seed=1)
    both = concatenate([a, b])
    torch.testing.assert_close(both.rows(slice(3, 5)).log_var, b.log_var)
    torch.testing.assert_close(both.rows(torch.tensor([4])).mean, b.mean[1:])
    slots = Gaussian(both.mean.view(1, 5, 8), both.log_var.view(1, 5, 8))
    assert slots.flatten().mean.shape == (5, 8)
    assert torch.equal(both[:4].unflatten(2, -1)[1, 0].log_var, both.log_var[2])
    assert slots.rows(slice(0, 2)).mean.shape == (1, 2, 8)
    assert both.to(torch.float32).log_var.dtype == torch.float32
    assert not both.detach().mean.requires_grad


def test_an_index_selects_items_and_the_tuple_still_unpacks():
    items = some(5)
    mean, log_var = items
    assert mean is items.mean
    assert log_var is items.log_var
    mask = torch.tensor([True, False, False, True, False])
    for index in (slice(1, 3), 2, -1, mask, torch.tensor([4, 0]), [1, 1]):
        part = items[index]
        assert isinstance(part, Gaussian)
        assert torch.equal(part.mean, items.mean[index])
        assert torch.equal(part.log_var, items.log_var[index])
    assert torch.equal(items[mask].uncertainty, items.uncertainty[mask])
    assert items._replace(mean=log_var).mean is log_var
    assert inclusion_score(items[:1], items[1:]).shape == (4, 8)


def integral(squared, other):
    """ln ∫ p_squared² p_other. The square of N(m, v) is N(m, v / 2) / sqrt(4 pi v)."""
    spread = (squared.var / 2 + other.var).sqrt()
    return Normal(other.mean, spread).log_prob(squared.mean) - (4 * math.pi * squared.var).log() / 2


def official_test(a, b, eps):
    wide = a.var + 2 * b.var
    factor = (2 / math.exp(eps)) ** 0.5 / (a.var.pow(1.5) * (b.var * wide).sqrt())
    return factor.log() - math.exp(eps) * (a.mean - b.mean).square() / wide


def distance(a, b):
    return ((a.mean[:, None] - b.mean).square() + a.var[:, None] + b.var).sum(-1)


def divergence(a, power):
    return kl_divergence(Normal(a.mean, a.var**power), Normal(torch.zeros_like(a.mean), 1.0))


Score = Callable[[Gaussian, Gaussian], Tensor]
FORMULAS = {
    "dot_products": (lambda a, b: dot_products(a.mean, b.mean), lambda a, b: torch.einsum("nd,md->nm", a.mean, b.mean)),
    "csd": (csd, distance),
    "csd_logits": (
        lambda a, b: csd_logits(a, b, 9.0, -3.0),
        lambda a, b: 9 * (a.mean @ b.mean.T - (a.var.sum(1)[:, None] + b.var.sum(1)) / 2) - 3,
    ),
    "log_integral": (log_integral, integral),
    "inclusion_score": (inclusion_score, lambda a, b: integral(a, b) - integral(b, a)),
    "official_test": (lambda a, b: official_inclusion_test(a, b, -1.5), lambda a, b: official_test(a, b, -1.5)),
    "official_score": (
        lambda a, b: official_inclusion_score(a, b, -1.5),
        lambda a, b: official_test(a, b, -1.5) - official_test(b, a, -1.5),
    ),
    "kl": (lambda a, _: kl_to_standard(a), lambda a, _: divergence(a, 0.5)),
    "official_kl": (lambda a, _: official_kl_to_standard(a), lambda a, _: divergence(a, 0.25)),
}
"""Functions of two sets of Gaussians, and their definitions, for float64."""


@pytest.mark.parametrize("name", FORMULAS)
@given(
    seed=st.integers(0, 99),
    log_var=st.sampled_from([-20.0, -4.0, 3.0]),
    near=st.sampled_from([1e-3, 1.0]),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    autocast=st.booleans(),
)
@settings(max_examples=25)
def test_closed_forms_equal_their_definitions_in_float32_at_least(name, seed, log_var, near, dtype, autocast):
    a, other = some(5, 64, seed, log_var), some(5, 64, seed + 1)
    b = Gaussian(F.normalize(a.mean + near * other.mean), a.log_var + near * (other.log_var + 4))
    a, b = a.to(dtype), b.to(dtype)
    function, definition = FORMULAS[name]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = function(a, b)
    assert found.dtype == torch.promote_types(dtype, torch.float32)
    exact = definition(a.to(torch.float64), b.to(torch.float64))
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_csd_is_never_negative_however_near_the_means_are(dtype):
    mean = some(40, 64).mean.to(dtype)
    for other in (mean, torch.nextafter(mean, -mean)):
        assert (csd(Gaussian.point(mean), Gaussian.point(other)) >= 0).all()


@pytest.mark.parametrize("function", [csd, inclusion_score])
def test_what_is_no_gaussian_is_named(function):
    a = some(3)
    first, second = ("a", "b") if function is csd else ("specific", "general")
    for wrong in (a.mean, tuple(a), a.mean.numpy()):
        for arguments, field in (((wrong, a), first), ((a, wrong), second)):
            with refusal_of(field):
                function(*arguments)
    with refusal_of("b"):
        csd(a, a[0])


@given(
    dim=st.sampled_from([1, 50, 96, 768]),
    spread=st.sampled_from([0.0, 1e-3, 1.0, 25.0, 80.0]),
    block=st.sampled_from([1, 100, 2000, None]),
    dtype=st.sampled_from([torch.bfloat16, torch.float32, torch.float64]),
)
@example(768, 1e-3, None, torch.float32)
@settings(max_examples=40)
def test_matrices_equal_sums_in_float64_for_blocks_of_any_size(dim, spread, block, dtype):
    noise = torch.Generator().manual_seed(3)
    a, b = (
        Gaussian(mean / 7, -8 + spread * log_var.clamp(-1, 1)).to(dtype)
        for mean, log_var in (torch.randn(2, count, dim, generator=noise, dtype=torch.float64) for count in (6, 4))
    )
    wide = Gaussian(a.mean[:, None], a.log_var[:, None]).to(torch.float64), b.to(torch.float64)
    for found, exact in (
        (inclusion_matrix(a, b, block=block), inclusion_score(*wide)),
        (official_inclusion_test_matrix(a, b, -1.5, block=block), official_inclusion_test(*wide, -1.5)),
    ):
        torch.testing.assert_close(found.double(), exact.sum(-1), rtol=3e-5, atol=1e-4 * (1 + dim / 50))
    assert inclusion_matrix(a[:0], b).shape == (0, 4)


def test_inclusion_of_anything_in_a_point_is_minus_infinity():
    a, b = some(4), Gaussian.point(some(3, seed=1).mean)
    assert (inclusion_matrix(a, b) == -torch.inf).all()
    assert inclusion_score(b, a[:3]).isnan().all(), "the square of a point has no integral"


@pytest.mark.parametrize("log_var", [-80.0, -20.0, 0.0, 20.0, 80.0])
def test_inclusion_is_finite_in_float32_where_the_released_code_overflows(log_var):
    specific, general = (g.to(torch.float32) for g in (some(4, log_var=log_var), some(4, log_var=log_var, seed=1)))
    leaves = [t.clone().requires_grad_() for t in (*specific, *general)]
    first, second = Gaussian(*leaves[:2]), Gaussian(*leaves[2:])
    for score in (inclusion_score(first, second), official_inclusion_score(first, second, -100)):
        assert score.isfinite().all()
        for gradient in torch.autograd.grad(score.sum(), leaves):
            assert gradient.isfinite().all()
