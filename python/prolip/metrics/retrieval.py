"""Retrieval scores, ranks, recall and R-precision (docs/specification.md, sections 4 and 9).

Q queries, C candidates, D dimensions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from prolip.errors import check_choice
from prolip.gaussian import Gaussian, dot_products
from prolip.metrics.config import Score
from prolip.metrics.statistics import rank_of_first_correct

RECALL_AT = (1, 5, 10)


@dataclass(frozen=True, kw_only=True)
class RetrievalResult:
    """Recalls are shares of the queries in [0, 1]; ranks count from 1."""

    recall_at_1: float
    recall_at_5: float
    recall_at_10: float
    mean_rank: float
    median_rank: float


class RPrecision(NamedTuple):
    """For each query; R is the number of its correct candidates."""

    r_precision: Tensor
    """f64 [Q], share of correct candidates among the first R."""
    map_at_r: Tensor
    """f64 [Q], mean over the first R places: the precision up to a place if its candidate is correct, else 0."""


def retrieval_scores(queries: Gaussian, candidates: Gaussian, score: Score = "csd") -> Tensor:
    """Score of each candidate for each query, [Q, C], in float32 at least; larger is nearer.

    Args:
        queries: [Q, D].
        candidates: [C, D].
        score: `mean`: the dot product of the means. `csd`: that, minus half the candidate's total variance. It ranks as
            the sampled distance, because a query's own variance is the same for all candidates (docs/specification.md,
            section 4).
    """
    check_choice("score", score, Score)
    scores = dot_products(queries.mean, candidates.mean)
    return scores if score == "mean" else scores - candidates.at_least_float32().total_var / 2


def rank_candidates(scores: Tensor) -> Tensor:
    """Candidate indices, best first, i64 [Q, C]; equal scores keep their order."""
    return torch.argsort(scores, dim=1, descending=True, stable=True)


def same_group(query_groups: Tensor, candidate_groups: Tensor) -> Tensor:
    """Which candidates have the query's group, bool [Q, C]: equal images, or an image and its captions."""
    return query_groups[:, None] == candidate_groups[None, :]


def first_ranks(
    queries: Gaussian, candidates: Gaussian, correct: Tensor, score: Score = "csd", block: int = 1024
) -> Tensor:
    """Rank of each query's best correct candidate, i64 [Q], from 0; ties count against it.

    Args:
        queries: [Q, D].
        candidates: [C, D].
        correct: bool [Q, C].
        block: rows of the score matrix in memory at a time.

    Raises:
        ValueError: `correct` has another shape, there is no query, one has no correct candidate, or a score is NaN.
    """
    _check_pairs(queries, candidates, correct)
    blocks = (slice(start, start + block) for start in range(0, len(queries.mean), block))
    return torch.cat(
        [
            rank_of_first_correct(retrieval_scores(queries.rows(rows), candidates, score), correct[rows])
            for rows in blocks
        ]
    )


def group_ranks(
    queries: Gaussian,
    candidates: Gaussian,
    query_groups: Tensor,
    candidate_groups: Tensor,
    score: Score = "csd",
    block: int = 1024,
) -> Tensor:
    """`first_ranks` where the query's group is correct, without a [Q, C] matrix in memory, i64 [Q]."""
    blocks = (slice(start, start + block) for start in range(0, max(1, len(queries.mean)), block))
    return torch.cat(
        [
            first_ranks(queries.rows(rows), candidates, same_group(query_groups[rows], candidate_groups), score, block)
            for rows in blocks
        ]
    )


def nearest_right_and_wrong(
    queries: Gaussian,
    candidates: Gaussian,
    right: Sequence[Sequence[int]],
    score: Score = "csd",
    *,
    itself: Tensor | None = None,
    count: int = 10,
    block: int = 1024,
) -> Tensor:
    """Scores of each query's nearest right candidates, and of its nearest other ones, f64 [2, Q, count], descending.

    Missing ones are minus infinity.

    Args:
        queries: [Q, D].
        candidates: [C, D].
        right: of each query.
        score: see `retrieval_scores`.
        itself: i64 [Q], the candidate that is the query, and is not counted; None if none is.
        count: scores to return.
        block: rows of the score matrix in memory at a time.
    """
    found = torch.full((2, len(right), count), -math.inf, dtype=torch.float64)
    for start in range(0, len(right), block):
        rows = slice(start, start + block)
        scores = retrieval_scores(queries.rows(rows), candidates, score).double()
        if itself is not None:
            scores.scatter_(1, itself[rows, None], -math.inf)
        correct = torch.zeros_like(scores, dtype=torch.bool)
        for row, some in zip(correct, right[rows], strict=True):
            row[list(some)] = True
        for kind, others in enumerate((~correct, correct)):
            best = scores.masked_fill(others, -math.inf).topk(min(count, scores.shape[1])).values
            found[kind, rows, : best.shape[1]] = best
    return found


def count_within(
    queries: Gaussian, candidates: Gaussian, smallest: Tensor, score: Score = "csd", block: int = 1024
) -> Tensor:
    """Number of each query's candidates with at least the score `smallest`, [Q], i64 [Q]."""
    blocks = (slice(start, start + block) for start in range(0, len(smallest), block))
    return torch.cat(
        [
            (retrieval_scores(queries.rows(rows), candidates, score).double() >= smallest[rows, None]).sum(dim=1)
            for rows in blocks
        ]
    )


def precision_at_r(
    queries: Gaussian,
    candidates: Gaussian,
    correct: Tensor,
    score: Score = "csd",
    block: int = 1024,
    *,
    num_correct: Tensor | None = None,
) -> RPrecision:
    """R-precision and mAP@R of queries with many correct candidates (ECCV Caption, CxC). Ties count against the query.

    `num_correct`, i64 [Q], is each query's R if some correct answers are not candidates. Otherwise as `first_ranks`.
    """
    _check_pairs(queries, candidates, correct)
    sizes = correct.sum(dim=1) if num_correct is None else num_correct
    if not bool((sizes > 0).all()):
        raise ValueError("correct: must have a correct candidate for each query")
    depth = min(int(sizes.max()), correct.shape[1])
    rank = torch.arange(1, depth + 1, device=correct.device)
    found = []
    for start in range(0, len(sizes), block):
        rows = slice(start, start + block)
        scores = retrieval_scores(queries.rows(rows), candidates, score)
        if bool(scores.isnan().any()):
            raise ValueError("scores: must not be NaN")
        # A stable sort with wrong candidates in front: ties count against the query.
        wrong_first = torch.argsort(correct[rows].byte(), dim=1, stable=True)
        order = rank_candidates(scores.gather(1, wrong_first))[:, :depth]
        hits = correct[rows].gather(1, wrong_first.gather(1, order)).double() * (rank <= sizes[rows, None])
        found.append((hits.sum(dim=1) / sizes[rows], (hits * hits.cumsum(dim=1) / rank).sum(dim=1) / sizes[rows]))
    return RPrecision(*map(torch.cat, zip(*found, strict=True)))


def _check_pairs(queries: Gaussian, candidates: Gaussian, correct: Tensor) -> None:
    pairs = (len(queries.mean), len(candidates.mean))
    if correct.shape != pairs:
        raise ValueError(f"correct: must have the shape of the scores, {pairs} (got {tuple(correct.shape)})")
    if pairs[0] == 0:
        raise ValueError("scores: must have at least one query")


def evaluate_retrieval(
    queries: Gaussian, candidates: Gaussian, correct: Tensor, score: Score = "csd"
) -> RetrievalResult:
    """Recall at 1, 5 and 10, and ranks of the first correct candidate; arguments and errors as for `first_ranks`."""
    ranks = first_ranks(queries, candidates, correct, score)
    return RetrievalResult(
        **{f"recall_at_{k}": float((ranks < k).double().mean()) for k in RECALL_AT},
        mean_rank=float(ranks.double().mean()) + 1,
        median_rank=math.floor(float(ranks.double().quantile(0.5))) + 1.0,  # rounded down as in the released code
    )


def chance_recall(correct: Tensor, k: int) -> float:
    """Expected recall at k >= 1 of a random order, in [0, 1]: mean over queries of 1 - C(wrong, k) / C(all, k).

    `correct` is bool [Q, C].
    """
    total = correct.shape[1]
    k = min(k, total)
    num_correct = correct.sum(dim=1).double()
    log_miss = torch.zeros_like(num_correct)
    for drawn in range(k):
        log_miss += torch.log((total - num_correct - drawn).clamp_min(0) / (total - drawn))
    return float((1 - log_miss.exp()).mean())
