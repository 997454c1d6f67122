"""Retrieval in both directions (SPEC §4 scores, §9 metrics). Q queries, C candidates, D dimensions."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from prolip.eval.config import Score
from prolip.eval.statistics import rank_of_first_correct
from prolip.gaussian import Gaussian

RECALL_AT = (1, 5, 10)


@dataclass(frozen=True, kw_only=True)
class RetrievalResult:
    """Recalls are shares of the queries in [0, 1]; ranks count from 1."""

    recall_at_1: float
    recall_at_5: float
    recall_at_10: float
    mean_rank: float
    median_rank: float
    num_queries: int
    num_candidates: int


@dataclass(frozen=True, kw_only=True)
class RPrecision:
    """Shares in [0, 1]; R is the number of a query's correct candidates."""

    r_precision: float
    """Share of correct ones among the first R."""
    map_at_r: float
    """Mean over the first R places of the precision up to each place that is correct, 0 for the others."""


class RPrecisions(NamedTuple):
    """The two shares of `RPrecision` for each query."""

    r_precision: Tensor
    """f64 [Q]"""
    map_at_r: Tensor
    """f64 [Q]"""


def retrieval_scores(queries: Gaussian, candidates: Gaussian, score: Score = "csd") -> Tensor:
    """Scores by which a query orders its candidates, [Q, C], larger is nearer.

    "csd": mean . mean minus half the candidate's total variance, which orders as the closed-form sampled distance does
    because the query's own variance is the same for all its candidates (SPEC §4). "mean": the first part alone.
    """
    scores = queries.mean @ candidates.mean.T
    return scores if score == "mean" else scores - candidates.total_var / 2


def rank_candidates(scores: Tensor) -> Tensor:
    """Candidate indices best first, i64 [Q, C]; equal scores keep their order."""
    return torch.argsort(scores, dim=1, descending=True, stable=True)


def same_group(query_groups: Tensor, candidate_groups: Tensor) -> Tensor:
    """Which candidates share a query's group, bool [Q, C]: equal pictures, or a picture and its captions."""
    return query_groups[:, None] == candidate_groups[None, :]


def first_ranks(
    queries: Gaussian, candidates: Gaussian, correct: Tensor, score: Score = "csd", block: int = 1024
) -> Tensor:
    """Rank of each query's best correct candidate, i64 [Q], from 0; ties count against it.

    Only `block` rows of the score matrix exist at a time.
    """
    parts = []
    for start in range(0, len(queries.mean), block):
        rows = slice(start, start + block)
        parts.append(rank_of_first_correct(retrieval_scores(queries.rows(rows), candidates, score), correct[rows]))
    return torch.cat(parts)


def precision_at_r(
    queries: Gaussian,
    candidates: Gaussian,
    correct: Tensor,
    score: Score = "csd",
    block: int = 1024,
    *,
    num_correct: Tensor | None = None,
) -> RPrecision:
    """How well a query's first R candidates are its R correct ones, averaged over queries; see `precisions_at_r`."""
    found = precisions_at_r(queries, candidates, correct, score, block, num_correct=num_correct)
    return RPrecision(r_precision=float(found.r_precision.mean()), map_at_r=float(found.map_at_r.mean()))


def precisions_at_r(
    queries: Gaussian,
    candidates: Gaussian,
    correct: Tensor,
    score: Score = "csd",
    block: int = 1024,
    *,
    num_correct: Tensor | None = None,
) -> RPrecisions:
    """How well each query's first R candidates are its R correct ones.

    For queries with many correct candidates (ECCV Caption, CxC). Ties count against the query.

    Args:
        queries: [Q, D].
        candidates: [C, D].
        correct: bool [Q, C], at least one true a row.
        score: see `retrieval_scores`.
        block: rows of the score matrix that exist at a time.
        num_correct: i64 [Q], the R of each query where some of its correct candidates are not among the candidates.

    Raises:
        ValueError: there is no query, one has no correct candidate, or a score is NaN.
    """
    sizes = correct.sum(dim=1) if num_correct is None else num_correct
    if len(sizes) == 0 or not bool((sizes > 0).all()):
        raise ValueError("every query needs a correct candidate, and there must be a query")
    most = min(int(sizes.max()), correct.shape[1])
    rank = torch.arange(1, most + 1, device=correct.device)
    precisions, averages = [], []
    for start in range(0, len(sizes), block):
        rows = slice(start, start + block)
        scores = retrieval_scores(queries.rows(rows), candidates, score)
        if bool(scores.isnan().any()):
            raise ValueError("scores hold NaN")
        # Wrong ones first, then by score, stably: among equals the wrong ones stay in front.
        wrong_first = torch.argsort(correct[rows].byte(), dim=1, stable=True)
        order = rank_candidates(scores.gather(1, wrong_first))[:, :most]
        hits = correct[rows].gather(1, wrong_first.gather(1, order)).double() * (rank <= sizes[rows, None])
        precisions.append(hits.sum(dim=1) / sizes[rows])
        averages.append((hits * hits.cumsum(dim=1) / rank).sum(dim=1) / sizes[rows])
    return RPrecisions(torch.cat(precisions), torch.cat(averages))


def evaluate_retrieval(
    queries: Gaussian, candidates: Gaussian, correct: Tensor, score: Score = "csd"
) -> RetrievalResult:
    """Recall at 1, 5 and 10 and the ranks of the first correct candidate.

    Args:
        queries: [Q, D].
        candidates: [C, D].
        correct: bool [Q, C], at least one true a row.
        score: see `retrieval_scores`.

    Raises:
        ValueError: a query has no correct candidate.
    """
    ranks = first_ranks(queries, candidates, correct, score)
    return RetrievalResult(
        recall_at_1=_recall(ranks, 1),
        recall_at_5=_recall(ranks, 5),
        recall_at_10=_recall(ranks, 10),
        mean_rank=float(ranks.double().mean()) + 1,
        median_rank=_median_rank(ranks),
        num_queries=len(ranks),
        num_candidates=correct.shape[1],
    )


def chance_recall(correct: Tensor, k: int) -> float:
    """Expected recall at k of a random order: mean over queries of 1 - C(wrong, k) / C(all, k)."""
    total = correct.shape[1]
    k = min(k, total)
    num_correct = correct.sum(dim=1).double()
    log_miss = torch.zeros_like(num_correct)
    for drawn in range(k):
        log_miss += torch.log((total - num_correct - drawn).clamp_min(0) / (total - drawn))
    return float((1 - log_miss.exp()).mean())


def ranking_metrics(image_mean: Tensor, text_mean: Tensor) -> dict[str, float]:
    """Ranks of the paired partner among all by mean similarity, both ways (SPEC §9, "Ranking metrics").

    Args:
        image_mean: [N, D].
        text_mean: [N, D]; row i belongs to image i.

    Returns:
        `image_to_text_mean_rank`, `_median_rank` (both from 1), `_R@1`, `_R@5`, `_R@10`; the same for `text_to_image`.
    """
    scores = image_mean @ text_mean.T
    partner = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    metrics: dict[str, float] = {}
    for name, direction in (("image_to_text", scores), ("text_to_image", scores.T)):
        ranks = rank_of_first_correct(direction, partner)
        metrics[f"{name}_mean_rank"] = float(ranks.double().mean()) + 1
        metrics[f"{name}_median_rank"] = _median_rank(ranks)
        for k in RECALL_AT:
            metrics[f"{name}_R@{k}"] = _recall(ranks, k)
    return metrics


def _recall(ranks: Tensor, k: int) -> float:
    return float((ranks < k).double().mean())


def _median_rank(ranks: Tensor) -> float:
    """The published form: floor of the median rank from 0 (of an even count, the mean of the middle two), plus 1."""
    return math.floor(float(ranks.double().quantile(0.5))) + 1.0
