"""Scores of Gaussians are computed in float32 at least: of half-precision inputs, and inside autocast."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from prolip.gaussian import (
    Gaussian,
    csd,
    csd_logits,
    dot_products,
    inclusion_score,
    kl_to_standard,
    log_integral,
    official_inclusion_test,
)
from prolip.inference.classify import weighted_classifier
from prolip.losses import inclusion_loss, vib_loss
from prolip.metrics.bprw import reweight_prompts
from prolip.metrics.config import BprwConfig, TraversalConfig
from prolip.metrics.hierarchy import traverse
from prolip.metrics.inclusion_search import most_including
from prolip.metrics.prompts import filter_prompts, smallest
from prolip.metrics.retrieval import retrieval_scores
from prolip.metrics.uncertainty import cosine_moments, similarity_std
from prolip.metrics.zero_shot import zero_shot_logits

ITEMS, CLASSES, PROMPTS, DIM = 24, 6, 4, 64
Score = Callable[[Gaussian, Gaussian], Tensor]
"""From items, [ITEMS, D], and prompts, [CLASSES, PROMPTS, D]."""


def near(*shape: int, seed: int) -> Gaussian:
    """Items so near each other that half precision confuses them."""
    draws = torch.Generator().manual_seed(seed)
    centre = torch.randn(DIM, generator=torch.Generator().manual_seed(9))
    mean = F.normalize(centre + 0.05 * torch.randn(*shape, DIM, generator=draws), dim=-1)
    return Gaussian(mean, 0.1 * torch.randn(*shape, DIM, generator=draws) - 6)


def reweighted(items: Gaussian, prompts: Gaussian) -> Tensor:
    return reweight_prompts(prompts, items, BprwConfig(num_neighbors=5, observations="expected")).classifier


def walked(items: Gaussian, prompts: Gaussian) -> Tensor:
    """Precision and recall of every walk."""
    ids = torch.arange(CLASSES * PROMPTS).view(CLASSES, PROMPTS)
    found = traverse(items[:CLASSES], prompts, ids, prompts.mean[0, 0], TraversalConfig(root="text"))
    return torch.stack([found.precision, found.recall])


def weighted(items: Gaussian, prompts: Gaussian) -> Tensor:
    return weighted_classifier(prompts, torch.full((CLASSES, PROMPTS), 1 / PROMPTS)).weight


SCORES: dict[str, Score] = {
    "dot_products": lambda items, prompts: dot_products(items.mean, prompts.mean[0]),
    "csd": lambda items, prompts: csd(items, prompts[0]),
    "csd_logits": lambda items, prompts: csd_logits(items, prompts[0], 100.0, -10.0),
    "inclusion_score": lambda items, prompts: inclusion_score(items[:PROMPTS], prompts[0]),
    "log_integral": lambda items, prompts: log_integral(items[:PROMPTS], prompts[0]),
    "official_inclusion_test": lambda items, prompts: official_inclusion_test(items[:PROMPTS], prompts[0], 0.0),
    "inclusion_loss": lambda items, prompts: inclusion_loss(
        items[:PROMPTS], prompts[0], form="official", scale=1.0, eps=-1.0
    ),
    "vib_loss": lambda items, _: vib_loss(items, form="official"),
    "kl_to_standard": lambda items, _: kl_to_standard(items),
    "retrieval_scores": lambda items, prompts: retrieval_scores(items, prompts[0]),
    "zero_shot_logits": lambda items, prompts: zero_shot_logits(items.mean, prompts.mean[0], logit_scale=100.0),
    "similarity_std": lambda items, prompts: similarity_std(items, prompts[0]),
    "cosine_moments": lambda items, prompts: cosine_moments(items, prompts[0]).var,
    "filter_prompts": lambda _, prompts: (
        filter_prompts(prompts, smallest(prompts.at_least_float32().total_var, 2)).weight
    ),
    "weighted_classifier": weighted,
    "reweight_prompts": reweighted,
    "traverse": walked,
    "most_including": lambda items, prompts: most_including(items, prompts.flatten()).double(),
}


@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
def test_autocast_changes_no_score(score: Score) -> None:
    items, prompts = near(ITEMS, seed=0), near(CLASSES, PROMPTS, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        found = score(items, prompts)
    assert found.dtype in {torch.float32, torch.float64}
    assert torch.equal(found, score(items, prompts))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
def test_half_precision_inputs_are_scored_in_float32(score: Score, dtype: torch.dtype) -> None:
    items, prompts = near(ITEMS, seed=0).to(dtype), near(CLASSES, PROMPTS, seed=1).to(dtype)
    found = score(items, prompts)
    assert found.dtype in {torch.float32, torch.float64}
    wide = score(items.to(torch.float64), prompts.to(torch.float64))
    torch.testing.assert_close(found.double(), wide.double(), rtol=1e-4, atol=1e-5)
