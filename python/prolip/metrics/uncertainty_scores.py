"""Uncertainty scores of items; larger is less certain.

Aleatoric scores measure ambiguity: an item's variance, or how even its probabilities are. Epistemic ones measure what
the model has not learned: the distance from known items. N items, M known items, C labels, D dimensions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from prolip.gaussian import Gaussian
from prolip.metrics.statistics import sorted_means
from prolip.metrics.uncertainty import similarity_std

_BLOCK = 2**24
"""Maximum similarities in memory."""


def logit_scores(logits: Tensor) -> dict[str, Tensor]:
    """Scores from logits [N, C], each f64 [N].

    - `max_probability`: 1 - largest probability (arXiv:1610.02136).
    - `margin`: 1 - (largest - second largest probability).
    - `entropy` of the probabilities, in nats.
    - `energy`: -ln sum exp(logit) (arXiv:2010.03759).
    """
    logits = logits.double()
    probabilities = logits.softmax(dim=1)
    best, second = F.pad(probabilities, (0, 1)).topk(2, dim=1).values.unbind(1)
    return {
        "max_probability": 1 - best,
        "margin": 1 - (best - second),
        "entropy": torch.special.entr(probabilities).sum(dim=1),
        "energy": -logits.logsumexp(dim=1),
    }


def expected_probabilities(images: Gaussian, classes: Gaussian, logit_scale: float) -> Tensor:
    """Approximate mean of the softmax over samples of both Gaussians, f64 [N, C].

    Each logit is divided by sqrt(1 + pi / 8 * its variance) (mean field, arXiv:2006.07584), with the variance of
    `similarity_std`.

    Args:
        images: [N, D].
        classes: [C, D].
    """
    images, classes = images.to(torch.float64), classes.to(torch.float64)
    logits = logit_scale * images.mean @ classes.mean.T
    spread = logit_scale * similarity_std(images, classes)
    return (logits / (1 + torch.pi / 8 * spread.square()).sqrt()).softmax(dim=1)


def neighbour_distance(means: Tensor, known: Tensor, num_neighbors: int = 5) -> Tensor:
    """1 - cosine similarity to the k-th nearest known item, f64 [N] (arXiv:2204.06507).

    Args:
        means: [N, D], unit norm.
        known: [M, D], unit norm, at least one.
        num_neighbors: k; M if there are fewer.
    """
    columns, count = known.double().T, min(num_neighbors, len(known))
    blocks = torch.split(means, max(1, _BLOCK // len(known)))
    return torch.cat([1 - (some.double() @ columns).topk(count, dim=1).values[:, -1] for some in blocks])


def risk_curve(score: Tensor, correct: Tensor, num_points: int = 40) -> tuple[Tensor, Tensor]:
    """Shares of answered items, and of wrong answers among them, f64 [points] each, for a chart.

    The items with the smallest scores are answered; equal scores are averaged over all orders. The first point is 5 %
    of the items.

    Args:
        score: [N].
        correct: [N], 0 or 1 (or bool).
    """
    count = len(correct)
    places = torch.linspace(max(1, count // 20), count, min(num_points, count)).round().long()
    wrong = sorted_means(score, 1 - correct.double()).cumsum(0)
    return places.double() / count, wrong[places - 1] / places
