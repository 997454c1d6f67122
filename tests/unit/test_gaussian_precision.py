"""Scores of Gaussians are computed in float32 at least: of half-precision inputs, and inside autocast."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from prolip.gaussian import Gaussian
from prolip.inference.classify import weighted_classifier
from prolip.losses import inclusion_loss, vib_loss
from prolip.metrics.bprw import reweight_prompts
from prolip.metrics.config import BprwConfig, TraversalConfig
from prolip.metrics.hierarchy import traverse
from prolip.metrics.prompts import filter_prompts, smallest
from prolip.metrics.retrieval import retrieval_scores
from prolip.metrics.uncertainty import similarity_std
from prolip.metrics.zero_shot import zero_shot_logits

ITEMS, CLASSES, PROMPTS, DIM = 24, 6, 4, 64
Score = Callable[[Gaussian, Gaussian], Tensor]
"""From items, [ITEMS, D], and prompts, [CLASSES, PROMPTS, D]."""


def near(*shape, seed):
    """Items so near each other that half precision confuses them."""
    draws = torch.Generator().manual_seed(seed)
    centre = torch.randn(DIM, generator=torch.Generator().manual_seed(9))
    mean = F.normalize(centre + 0.05 * torch.randn(*shape, DIM, generator=draws), dim=-1)
    return Gaussian(mean, 0.1 * torch.randn(*shape, DIM, generator=draws) - 6)


def reweighted(items, prompts):
    return reweight_prompts(prompts, items, BprwConfig(num_neighbors=5, observations="expected")).classifier


def walked(items, prompts):
    """Precision and recall of every walk."""
    ids = torch.arange(CLASSES * PROMPTS).view(CLASSES, PROMPTS)
    found = traverse(items[:CLASSES], prompts, ids, prompts.mean[0, 0], TraversalConfig(root="text"))
    return torch.stack([found.precision, found.recall])


def weighted(items, prompts):
    return weighted_classifier(prompts, torch.full((CLASSES, PROMPTS), 1 / PROMPTS)).weight


SCORES = {
    "inclusion_loss": lambda items, prompts: inclusion_loss(
        items[:PROMPTS], prompts[0], form="official", scale=1.0, eps=-1.0
    ),
    "vib_loss": lambda items, _: vib_loss(items, form="official"),
    "retrieval_scores": lambda items, prompts: retrieval_scores(items, prompts[0]),
    "retrieval_scores_of_means": lambda items, prompts: retrieval_scores(items, prompts[0], "mean"),
    "zero_shot_logits": lambda items, prompts: zero_shot_logits(
        items.mean, prompts.mean[0], prompts[0].at_least_float32().total_var, logit_scale=100.0
    ),
    "similarity_std": lambda items, prompts: similarity_std(items, prompts[0]),
    "filter_prompts": lambda _, prompts: (
        filter_prompts(prompts, smallest(prompts.at_least_float32().total_var, 2)).weight
    ),
    "weighted_classifier": weighted,
    "reweight_prompts": reweighted,
    "traverse": walked,
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
def test_scores_are_those_of_float64_in_any_type_and_inside_autocast(score, dtype):
    items, prompts = near(ITEMS, seed=0).to(dtype), near(CLASSES, PROMPTS, seed=1).to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float16):
        found = score(items, prompts)
    assert found.dtype in {torch.float32, torch.float64}
    assert torch.equal(found, score(items, prompts))
    wide = score(items.to(torch.float64), prompts.to(torch.float64))
    torch.testing.assert_close(found.double(), wide.double(), rtol=1e-4, atol=1e-5)
