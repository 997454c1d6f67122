"""Ranks and correlations that every measure shares.

Q queries, C candidates, N items.
"""

import math

import torch
from torch import Tensor


def rank_of_first_correct(scores: Tensor, correct: Tensor) -> Tensor:
    """Number of wrong candidates that score at least as high as the best correct one, i64 [Q], from 0.

    Ties count against the query, so that a collapsed model (all scores equal) earns nothing. Several candidates may be
    correct (equal pictures, several captions of a picture); the others of them push nothing down.

    Args:
        scores: [Q, C], larger is better.
        correct: bool [Q, C].

    Raises:
        ValueError: a score is NaN, or a query has no correct candidate.
    """
    if scores.shape != correct.shape:
        raise ValueError(f"scores {tuple(scores.shape)} and correct {tuple(correct.shape)} differ in shape")
    if bool(torch.isnan(scores).any()):
        raise ValueError("scores hold NaN")
    if not bool(correct.any(dim=1).all()):
        missing = int((~correct.any(dim=1)).nonzero()[0])
        raise ValueError(f"query {missing} has no correct candidate")
    best = scores.masked_fill(~correct, -math.inf).amax(dim=1, keepdim=True)
    return ((scores >= best) & ~correct).sum(dim=1)


def average_ranks(values: Tensor) -> Tensor:
    """Rank of each value from 0, equal values sharing their mean rank, f64 [N]."""
    _, inverse, counts = torch.unique(values, return_inverse=True, return_counts=True)
    counts = counts.double()
    shared: Tensor = counts.cumsum(0) - counts + (counts - 1) / 2
    return shared[inverse]


def pearson(a: Tensor, b: Tensor) -> float:
    """Pearson correlation in [-1, 1]; NaN when either side is constant or has fewer than two values."""
    if a.shape != b.shape:
        raise ValueError(f"{tuple(a.shape)} and {tuple(b.shape)} values cannot be correlated")
    if a.numel() < 2 or bool((a == a[0]).all()) or bool((b == b[0]).all()):
        return math.nan
    a, b = a.double(), b.double()
    a, b = a - a.mean(), b - b.mean()
    return float((a @ b) / (a.norm() * b.norm()))


def spearman(a: Tensor, b: Tensor) -> float:
    """Spearman's rank correlation in [-1, 1], ties sharing their mean rank; NaN as for `pearson`."""
    return pearson(average_ranks(a), average_ranks(b))
