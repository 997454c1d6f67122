"""Conformal label sets: sets that contain the right label with a guaranteed probability.

Split conformal prediction (arXiv:2107.07511): each label of an item has a score that is small if the label fits. A
threshold comes from the scores of the right labels of calibration items. The set holds the labels with scores up to it.
If the item and the calibration items are exchangeable, it contains the right label with the requested probability, on
average over calibration sets and items.

N items, C labels.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from prolip.decisions.config import Method
from prolip.errors import check_choice

Basis = Literal["class", "cluster", "all"]
"""The calibration items that give a label's threshold: its own, those of similar labels, or all."""
_QUANTILES = (0.5, 0.6, 0.7, 0.8, 0.9)
_FEWEST = 3
"""Smallest number of items with which a label joins a cluster."""
_ROUNDS = 50


class ClassThresholds(NamedTuple):
    """A threshold for each label."""

    value: Tensor
    """f64 [C]"""
    basis: list[Basis]
    """C words."""


def conformal_scores(
    probabilities: Tensor,
    method: Method,
    *,
    draws: Tensor | None = None,
    penalty: float = 0.1,
    free_labels: int = 2,
) -> Tensor:
    """The score of every label of every item, f64 [N, C]; small if the label fits.

    - `lac`: 1 - p (arXiv:1609.00451). The smallest sets on average, if `probabilities` are right; empty for some
      items.
    - `aps`: the probability of all labels that are at least as probable (arXiv:2006.02544). Sets adapt to the item.
    - `raps`: `aps` plus `penalty` for every place of the label in the order of probability beyond `free_labels`, which
      keeps sets short (arXiv:2009.14193).

    Args:
        probabilities: [N, C], rows sum to 1.
        method: the score.
        draws: [N], uniform in [0, 1], one per item, for `aps` and `raps`: the share of the label's own probability that
            counts. Sets are then smaller, and may be empty. None counts all of it. Draw for calibration items and new
            items alike, or for neither.
        penalty: for `raps`, at least 0.
        free_labels: for `raps`.
    """
    check_choice("method", method, Method)
    probabilities = probabilities.double()
    if method == "lac":
        return 1 - probabilities
    ranked, order = probabilities.sort(dim=1, descending=True, stable=True)
    share = 1.0 if draws is None else draws.double()[:, None]
    scores = ranked.cumsum(dim=1) - ranked + share * ranked
    if method == "raps":
        places = torch.arange(1, ranked.shape[1] + 1, dtype=ranked.dtype, device=ranked.device)
        scores = scores + penalty * (places - free_labels).clamp_min(0)
    return torch.empty_like(scores).scatter_(1, order, scores)


def items_needed(guarantee: float) -> int:
    """Fewest calibration items for a finite threshold: the smallest n with ceil((n + 1) * guarantee) <= n.

    Raises:
        ValueError: the guarantee is not between 0 and 1.
    """
    if not 0 < guarantee < 1:
        raise ValueError(f"guarantee {guarantee} must be between 0 and 1")
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
        raise ValueError("scores hold NaN")
    if len(scores) < items_needed(guarantee):
        return math.inf
    place = max(1, math.ceil((len(scores) + 1) * guarantee - 1e-9))
    return float(scores.double().kthvalue(place).values)


def class_thresholds(
    scores: Tensor, labels: Tensor, num_labels: int, guarantee: float, *, seed: int = 0
) -> ClassThresholds:
    """A threshold for each label, so that the guarantee holds for the items of each label as far as the data allow.

    A label with `items_needed` items has its own threshold, and the guarantee holds for its items. Rarer labels are
    grouped by how their scores are distributed, and share a threshold (arXiv:2306.09335): half of their items, drawn by
    `seed`, choose the groups and the other half gives the thresholds. The guarantee then holds for the group. Labels
    with fewer than three items to choose by, and groups with too few, use the threshold of all items.

    Args:
        scores: [n], of the right labels of calibration items.
        labels: i64 [n].
        num_labels: C.
        guarantee: between 0 and 1.
        seed: seed of the draw.
    """
    needed, scores = items_needed(guarantee), scores.double()
    counts = torch.bincount(labels, minlength=num_labels)
    value = torch.full((num_labels,), conformal_threshold(scores, guarantee), dtype=torch.float64)
    basis: list[Basis] = ["all"] * num_labels
    for label in (counts >= needed).nonzero().flatten().tolist():
        value[label], basis[label] = conformal_threshold(scores[labels == label], guarantee), "class"
    rare = (counts < needed)[labels]
    drawn = torch.rand(len(labels), generator=torch.Generator().manual_seed(seed), dtype=torch.float64) < 0.5
    choosing, giving = rare & drawn, rare & ~drawn
    groups = _clusters(scores[choosing], labels[choosing], num_labels, int(giving.sum()) // (2 * needed))
    for group in sorted(set(groups.tolist()) - {-1}):
        members = groups == group
        own = scores[giving & members[labels]]
        if len(own) >= needed:
            value[members] = conformal_threshold(own, guarantee)
            for label in members.nonzero().flatten().tolist():
                basis[label] = "cluster"
    return ClassThresholds(value, basis)


def _clusters(scores: Tensor, labels: Tensor, num_labels: int, most: int) -> Tensor:
    """The cluster of each label, i64 [C], by k-means of the quantiles of its scores; -1 for none."""
    found = torch.full((num_labels,), -1, dtype=torch.int64)
    counts = torch.bincount(labels, minlength=num_labels)
    members = (counts >= _FEWEST).nonzero().flatten()
    number = min(most, len(members))
    if number < 1:
        return found
    levels = torch.tensor(_QUANTILES, dtype=torch.float64)
    points = torch.stack([scores[labels == label].quantile(levels) for label in members.tolist()])
    weights = counts[members].double().sqrt()
    order = points.sum(dim=1).argsort(stable=True)
    centres = points[order[torch.linspace(0, len(order) - 1, number).round().long()]]
    places = torch.zeros(len(members), dtype=torch.int64)
    for _ in range(_ROUNDS):
        before, places = places, torch.cdist(points, centres).argmin(dim=1)
        for cluster in torch.unique(places).tolist():
            inside = places == cluster
            centres[cluster] = (weights[inside, None] * points[inside]).sum(dim=0) / weights[inside].sum()
        if places.equal(before):
            break
    found[members] = places
    return found
