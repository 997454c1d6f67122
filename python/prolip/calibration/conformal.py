"""Conformal label sets: sets that contain the right label with a guaranteed probability.

Split conformal prediction (arXiv:2107.07511). A set holds the labels whose score is at most a threshold, from the right
labels of calibration items. The guarantee is for exchangeable items, on average over calibration sets and items. N
items, C labels.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Basis = Literal["class", "cluster", "all"]
"""Items that give a label's threshold: its own, those of similar labels, or all."""
_QUANTILES = (0.5, 0.6, 0.7, 0.8, 0.9)
_MIN_ITEMS = 3
"""Minimum number of items with which a label joins a cluster."""
_ROUNDS = 50


class ClassThresholds(NamedTuple):
    """A threshold for each label."""

    value: Tensor
    """f64 [C]"""
    basis: list[Basis]


def items_needed(guarantee: float) -> int:
    """Calibration items for a finite threshold: the smallest n with ceil((n + 1) * guarantee) <= n."""
    if not 0 < guarantee < 1:
        raise ValueError(f"guarantee: must be between 0 and 1 (got {guarantee})")
    return max(1, math.ceil(guarantee / (1 - guarantee) - 1e-9))


def conformal_threshold(scores: Tensor, guarantee: float) -> float:
    """The ceil((n + 1) * guarantee)-th smallest of n scores; infinity if there are fewer than `items_needed`.

    A further, exchangeable score is at most this threshold with at least the guaranteed probability, and with at most
    1 / (n + 1) more if no two scores are equal (arXiv:2107.07511, appendix D).

    Args:
        scores: [n], of the right labels of calibration items.
        guarantee: between 0 and 1.

    Raises:
        ValueError: the guarantee is not between 0 and 1, or a score is NaN.
    """
    if bool(scores.isnan().any()):
        raise ValueError("scores: must not be NaN")
    if len(scores) < items_needed(guarantee):
        return math.inf
    place = max(1, math.ceil((len(scores) + 1) * guarantee - 1e-9))
    return float(scores.double().kthvalue(place).values)


def class_thresholds(
    scores: Tensor, labels: Tensor, num_labels: int, guarantee: float, *, seed: int = 0
) -> ClassThresholds:
    """A threshold for each label, so that the guarantee holds for the items of each label as far as the data allow.

    A label with `items_needed` items has its own threshold. Rarer labels are clustered by the distribution of their
    scores and share a threshold (arXiv:2306.09335): a random half of their items chooses the clusters, the other half
    gives the thresholds. The guarantee then holds for the cluster. All others use that of all items.

    Args:
        scores: [n], of the right labels of calibration items.
        labels: i64 [n].
        guarantee: between 0 and 1.
    """
    needed, scores = items_needed(guarantee), scores.double()
    counts = torch.bincount(labels, minlength=num_labels)
    value = torch.full((num_labels,), conformal_threshold(scores, guarantee), dtype=torch.float64)
    basis: list[Basis] = ["all"] * num_labels

    def share(members: Tensor, some: Tensor, kind: Basis) -> None:
        threshold = conformal_threshold(scores[some], guarantee)
        if threshold < math.inf:
            value[members] = threshold
            for label in members.tolist():
                basis[label] = kind

    for label in (counts >= needed).nonzero():
        share(label, labels == label, "class")
    rare = (counts < needed)[labels]
    drawn = torch.rand(len(labels), generator=torch.Generator().manual_seed(seed), dtype=torch.float64) < 0.5
    choosing, giving = rare & drawn, rare & ~drawn
    for members in _clusters(scores[choosing], labels[choosing], int(giving.sum()) // (2 * needed)):
        share(members, giving & torch.isin(labels, members), "cluster")
    return ClassThresholds(value, basis)


def _clusters(scores: Tensor, labels: Tensor, number: int) -> list[Tensor]:
    """By k-means of the quantiles of their scores."""
    counts = torch.bincount(labels)
    members = (counts >= _MIN_ITEMS).nonzero().flatten()
    number = min(number, len(members))
    if number < 1:
        return []
    quantiles = torch.tensor(_QUANTILES, dtype=torch.float64)
    points = torch.stack([scores[labels == label].quantile(quantiles) for label in members])
    weights = counts[members].double().sqrt()[:, None]
    order = points.sum(dim=1).argsort(stable=True)
    centres = points[order[torch.linspace(0, len(order) - 1, number).round().long()]]
    for _ in range(_ROUNDS):
        places = torch.cdist(points, centres).argmin(dim=1)
        for cluster in torch.unique(places):
            inside = places == cluster
            centres[cluster] = (weights * points)[inside].sum(dim=0) / weights[inside].sum()
    return [members[places == cluster] for cluster in torch.unique(places)]
