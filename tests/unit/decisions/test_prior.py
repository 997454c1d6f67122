"""How frequent labels are: estimated from items, and added to logits."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from prolip.decisions import Evidence, Subject, fit_calibration, label_shares, log_prior
from prolip.errors import UserError


def labels(*counts: int) -> Tensor:
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))


def test_shares_and_counts_are_the_same_prior() -> None:
    expected = torch.tensor([0.25, 0.75, 0.0], dtype=torch.float64).log()
    torch.testing.assert_close(log_prior([0.25, 0.75, 0], 3), expected)
    torch.testing.assert_close(log_prior(torch.tensor([5, 15, 0]), 3), expected)


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ([1.0, 2.0], "prior has 2 numbers: it must have one per label, 3"),
        ([[1.0, 2.0, 3.0]], "prior has 3 numbers"),
        ([1.0, -2.0, 3.0], r"prior\[1\] is -2.0: it must be a share or a count, at least 0"),
        ([1.0, 2.0, float("nan")], r"prior\[2\] is nan"),
        ([1.0, 2.0, float("inf")], r"prior\[2\] is inf"),
        ([0.0, 0.0, 0.0], "prior is 0 for every label"),
    ],
)
def test_an_invalid_prior_is_named(prior: list[float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        log_prior(prior, 3)


def test_optimal_contrastive_logits_times_the_prior_give_the_posterior() -> None:
    """For pairs drawn from p(image, text), the expected PPCL of a batch is smallest at the logits of the
    specification; their softmax with the texts' frequencies is p(text | image)."""
    joint = torch.rand(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    joint /= joint.sum()
    of_image, of_text = joint.sum(dim=1, keepdim=True), joint.sum(dim=0)
    others = 63
    logits = (joint / (of_image * of_text)).log() - math.log(others)
    logits.requires_grad_()
    loss = (joint * F.softplus(-logits) + others * of_image * of_text * F.softplus(logits)).sum()
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)
    evidence = Evidence(logits.detach(), None, None, torch.zeros(5, 2))
    posterior = evidence.with_prior(log_prior(of_text, 4)).logits.softmax(dim=1)
    torch.testing.assert_close(posterior, joint / of_image)


def test_a_prior_changes_neither_distances_nor_pairs() -> None:
    evidence = Evidence(torch.zeros(2, 3), torch.ones(2, 3), torch.full((2, 3), 2.0), torch.zeros(2, 4))
    found = evidence.with_prior(log_prior([1, 2, 1], 3))
    torch.testing.assert_close(found.logits.softmax(dim=1), torch.tensor([[0.25, 0.5, 0.25]] * 2))
    assert found[1:] == evidence[1:]


def test_counts_that_differ_by_chance_give_nearly_even_shares() -> None:
    assert label_shares(labels(10, 10, 10, 10), 4) == pytest.approx([0.25] * 4)
    drawn = torch.randint(1000, (1500,), generator=torch.Generator().manual_seed(0))  # from 0 to 7 of each label
    shares = torch.tensor(label_shares(drawn, 1000)) * 1000
    assert float(shares.min()) > 0.9
    assert float(shares.max()) < 1.3


def test_large_counts_that_differ_are_kept_as_shares() -> None:
    shares = label_shares(labels(700, 200, 90, 10, 0), 5)
    assert shares == pytest.approx([0.7, 0.2, 0.09, 0.01, 0], abs=0.005)
    assert shares[-1] > 0


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(any))
def test_shares_are_between_uniform_and_the_counts(counts: list[int]) -> None:
    shares = label_shares(labels(*counts), len(counts))
    assert sum(shares) == pytest.approx(1)
    for share, count in zip(shares, counts, strict=True):
        low, high = sorted([1 / len(counts), count / sum(counts)])
        assert low - 1e-12 <= share <= high + 1e-12
        assert share > 0


def test_a_calibration_with_an_unknown_prior_is_an_error() -> None:
    evidence = Evidence(torch.eye(4), None, None, torch.eye(4))
    subject = Subject("model", "digest", "data", list("abcd"), ["{}"])
    with pytest.raises(UserError, match="prior is 'labeled': it must be one of even, labelled"):
        fit_calibration(evidence, torch.arange(4), subject, prior="labeled", fit_share=0.5)  # type: ignore[arg-type]
