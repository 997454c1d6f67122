"""Properties and values of the measures of Gaussians."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.support.refusals import refusal_of

from prolip.gaussian import (
    Gaussian,
    concatenate,
    csd,
    inclusion_matrix,
    inclusion_score,
    official_inclusion_score,
    official_inclusion_test,
    official_inclusion_test_matrix,
)


def some(count: int, dim: int = 8, seed: int = 0, log_var: float = -4.0) -> Gaussian:
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(count, dim, generator=generator, dtype=torch.float64)
    spread = torch.randn(count, dim, generator=generator, dtype=torch.float64)
    return Gaussian(mean / mean.norm(dim=-1, keepdim=True), log_var + spread)


def test_the_text_of_gaussians_is_short() -> None:
    assert repr(some(3000)).startswith("Gaussian([3000, 8], torch.float64, cpu, mean uncertainty 0.")
    assert repr(Gaussian.point(torch.empty(2, 8, device="meta"))) == "Gaussian([2, 8], torch.float32, meta)"


def test_a_point_has_no_variance() -> None:
    point = Gaussian.point(torch.ones(2, 3))
    assert torch.equal(point.var, torch.zeros(2, 3))
    assert torch.equal(point.total_var, torch.zeros(2))
    assert torch.equal(point.uncertainty, torch.zeros(2))
    assert torch.equal(csd(point, point), torch.zeros(2, 2))
    assert point.is_point
    assert not Gaussian(point.mean, torch.tensor([[-torch.inf, 0.0, 0.0], [-torch.inf] * 3])).is_point


def test_rows_flatten_and_concatenate_keep_mean_and_variance_together() -> None:
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


def test_an_index_selects_items_and_the_tuple_still_unpacks() -> None:
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


def test_csd_is_the_expected_squared_distance_of_samples() -> None:
    a, b = some(1, seed=1), some(1, seed=2)
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(2, 400_000, 8, generator=generator, dtype=torch.float64)
    samples = [g.mean + g.var.sqrt() * noise[i] for i, g in enumerate((a, b))]
    measured = (samples[0] - samples[1]).square().sum(-1).mean()
    torch.testing.assert_close(csd(a, b).squeeze(), measured, rtol=5e-3, atol=0)


@pytest.mark.parametrize("function", [csd, inclusion_score])
def test_what_is_no_gaussian_is_named(function: Callable[..., torch.Tensor]) -> None:
    a = some(3)
    first, second = ("a", "b") if function is csd else ("specific", "general")
    for wrong in (a.mean, tuple(a), a.mean.numpy()):
        for arguments, field in (((wrong, a), first), ((a, wrong), second)):
            with refusal_of(field):
                function(*arguments)
    with refusal_of("b"):
        csd(a, a[0])


def test_inclusion_follows_the_variances_and_grows_with_distance() -> None:
    narrow, wide = some(5, log_var=-8), some(5, log_var=-2, seed=1)
    assert (inclusion_score(narrow, wide) > 0).all()
    torch.testing.assert_close(inclusion_score(narrow, wide), -inclusion_score(wide, narrow))
    assert not inclusion_score(narrow, Gaussian(wide.mean, narrow.log_var)).abs().gt(1e-12).any()
    farther = Gaussian(wide.mean + 10 * (wide.mean - narrow.mean), wide.log_var)
    assert (inclusion_score(narrow, farther) > inclusion_score(narrow, wide)).all()


def test_official_score_weighs_log_variances_more_and_ignores_distance() -> None:
    base = torch.zeros(1, 1, dtype=torch.float64)
    step = 1e-6
    equal, wider = Gaussian(base, base), Gaussian(base, base + step)
    assert float(inclusion_score(equal, wider)) / step == pytest.approx(1 / 3, rel=1e-5)
    assert float(official_inclusion_score(equal, wider, -20)) / step == pytest.approx(5 / 6, rel=1e-5)


def test_matrices_equal_pairwise_sums_for_any_block_size() -> None:
    a, b = some(5), some(3, seed=1)
    exact = torch.stack([inclusion_score(Gaussian(m, v), b).sum(-1) for m, v in zip(*a, strict=True)])
    official = torch.stack([official_inclusion_test(Gaussian(m, v), b, 0).sum(-1) for m, v in zip(*a, strict=True)])
    for block in (1, 2 * a.mean.shape[1], 50, None):
        torch.testing.assert_close(inclusion_matrix(a, b, block=block), exact)
        torch.testing.assert_close(official_inclusion_test_matrix(a, b, block=block), official)
    assert inclusion_matrix(a.rows(slice(0, 0)), b).shape == (0, 3)


@pytest.mark.parametrize("spread", [1.0, 25.0, 80.0])
def test_matrices_keep_their_precision_in_float32(spread: float) -> None:
    noise = torch.Generator().manual_seed(3)
    a, b = (Gaussian(torch.randn(6, 50, generator=noise) / 7, torch.randn(6, 50, generator=noise)) for _ in range(2))
    a, b = (Gaussian(g.mean, -8 + spread * g.log_var.clamp(-1, 1)) for g in (a, b))
    for matrix, score in (
        (inclusion_matrix, inclusion_score),
        (official_inclusion_test_matrix, lambda x, y: official_inclusion_test(x, y, 0.0)),
    ):
        wide = [g.to(torch.float64) for g in (a, b)]
        exact = score(Gaussian(wide[0].mean[:, None], wide[0].log_var[:, None]), wide[1]).sum(-1)
        torch.testing.assert_close(matrix(a, b).double(), exact, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_matrices_of_half_precision_inputs_are_computed_in_float32(dtype: torch.dtype) -> None:
    a, b = (g.to(dtype) for g in (some(4, dim=128), some(3, dim=128, seed=1)))
    for matrix in (inclusion_matrix, official_inclusion_test_matrix):
        assert torch.equal(matrix(a, b), matrix(a.to(torch.float32), b.to(torch.float32)))


def test_inclusion_of_anything_in_a_point_is_minus_infinity() -> None:
    a, b = some(4), Gaussian.point(some(3, seed=1).mean)
    assert (inclusion_matrix(a, b) == -torch.inf).all()
    assert inclusion_score(b, a[:3]).isnan().all(), "the square of a point has no integral"


@pytest.mark.parametrize("log_var", [-80.0, -20.0, 0.0, 20.0, 80.0])
def test_inclusion_is_finite_in_float32_where_the_released_code_overflows(log_var: float) -> None:
    specific, general = (g.to(torch.float32) for g in (some(4, log_var=log_var), some(4, log_var=log_var, seed=1)))
    leaves = [t.clone().requires_grad_() for t in (*specific, *general)]
    first, second = Gaussian(*leaves[:2]), Gaussian(*leaves[2:])
    for score in (inclusion_score(first, second), official_inclusion_score(first, second, -100)):
        assert score.isfinite().all()
        for gradient in torch.autograd.grad(score.sum(), leaves):
            assert gradient.isfinite().all()
    exact = inclusion_score(specific.to(torch.float64), general.to(torch.float64))
    torch.testing.assert_close(inclusion_score(specific, general).double(), exact, rtol=1e-5, atol=1e-6)
