"""Retrieval against a loop over queries, with ties, groups and several right answers."""

import itertools
from collections.abc import Callable
from typing import get_args

import pytest
import torch
import torch.nn.functional as F

from prolip.gaussian import Gaussian, csd
from prolip.metrics.config import Score
from prolip.metrics.retrieval import (
    chance_recall,
    evaluate_retrieval,
    first_ranks,
    group_ranks,
    precision_at_r,
    rank_candidates,
    retrieval_scores,
    same_group,
)

T = torch.tensor


def gaussians(count: int, seed: int, dim: int = 8) -> Gaussian:
    noise = torch.Generator().manual_seed(seed)
    mean = F.normalize(torch.randn(count, dim, generator=noise, dtype=torch.float64), dim=1)
    return Gaussian(mean, torch.randn(count, dim, generator=noise, dtype=torch.float64) - 2)


def test_scores_rank_by_the_sampled_distance() -> None:
    queries, candidates = gaussians(7, 0), gaussians(9, 1)
    by_distance = torch.argsort(csd(queries, candidates), dim=1, stable=True)
    assert torch.equal(rank_candidates(retrieval_scores(queries, candidates)), by_distance)
    by_angle = torch.argsort(-(queries.mean @ candidates.mean.T), dim=1, stable=True)
    assert torch.equal(rank_candidates(retrieval_scores(queries, candidates, "mean")), by_angle)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_ranks_of_half_precision_inputs_are_those_of_float32(dtype: torch.dtype) -> None:
    """Scores of near items differ by less than half precision holds: they would be equal."""
    base = gaussians(1, 5, dim=64)
    near = gaussians(60, 6, dim=64)
    items = Gaussian(F.normalize(base.mean + 0.02 * near.mean, dim=1), near.log_var - 6).to(dtype)
    single = items.to(torch.float32)
    for score in get_args(Score):
        scores = retrieval_scores(items, items, score)
        assert torch.equal(scores, retrieval_scores(single, single, score))
        assert scores.dtype == torch.float32
    own = torch.arange(60)
    assert torch.equal(group_ranks(items, items, own, own), group_ranks(single, single, own, own))


def test_nothing_to_rank_is_an_error() -> None:
    none, some, own = gaussians(0, 0), gaussians(3, 1), torch.arange(3)
    for queries, candidates, groups, message in (
        (none, some, (own[:0], own), "there must be a query"),
        (some, none, (own, own[:0]), "query 0 has no correct candidate"),
    ):
        with pytest.raises(ValueError, match=message):
            group_ranks(queries, candidates, *groups)
        with pytest.raises(ValueError, match="there must be a query"):
            precision_at_r(queries, candidates, same_group(*groups))
        with pytest.raises(ValueError, match="there must be a query and a candidate"):
            chance_recall(same_group(*groups), 1)


def test_equal_scores_keep_their_order() -> None:
    assert rank_candidates(T([[1.0, 2.0, 1.0, 2.0]])).tolist() == [[1, 3, 0, 2]]


@pytest.mark.parametrize("score", ["csd", "mean"])
def test_retrieval_metrics_equal_a_slow_loop(score: str) -> None:
    queries, candidates = gaussians(23, 2), gaussians(31, 3)
    correct = same_group(torch.arange(23) % 7, torch.arange(31) % 7)
    ranks = []
    for q in range(23):
        order = sorted(
            range(31),
            key=lambda c: (
                -float(
                    queries.mean[q] @ candidates.mean[c]
                    - (candidates.log_var[c].exp().sum() / 2 if score == "csd" else 0)
                )
            ),
        )
        ranks.append(next(place for place, c in enumerate(order) if q % 7 == c % 7))
    result = evaluate_retrieval(queries, candidates, correct, score)  # type: ignore[arg-type]
    for k, recall in ((1, result.recall_at_1), (5, result.recall_at_5), (10, result.recall_at_10)):
        assert recall == pytest.approx(sum(rank < k for rank in ranks) / 23)
    assert result.mean_rank == pytest.approx(sum(ranks) / 23 + 1)
    assert result.median_rank == sorted(ranks)[11] + 1
    assert (result.num_queries, result.num_candidates) == (23, 31)


def test_block_sizes_do_not_change_the_ranks() -> None:
    queries, candidates = gaussians(23, 4), gaussians(11, 5)
    groups = torch.arange(23) % 5, torch.arange(11) % 5
    correct = same_group(*groups)
    whole = first_ranks(queries, candidates, correct)
    for block in (1, 7, 23, 100):
        assert torch.equal(first_ranks(queries, candidates, correct, block=block), whole)
        assert torch.equal(group_ranks(queries, candidates, *groups, block=block), whole)


def test_any_caption_of_an_equal_image_is_correct() -> None:
    """Two images are equal: each may be answered by either caption; a third lies between them."""
    images = Gaussian.point(T([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    texts = Gaussian.point(T([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]]))
    image_ids = T([0, 0, 1])
    apart = evaluate_retrieval(images, texts, torch.eye(3).bool())
    together = evaluate_retrieval(images, texts, same_group(image_ids, image_ids))
    assert apart.recall_at_1 == pytest.approx(1 / 3)
    assert together.recall_at_1 == pytest.approx(2 / 3)


def test_a_collapsed_model_has_zero_recall() -> None:
    same = Gaussian.point(torch.ones(20, 4) / 2)
    assert evaluate_retrieval(same, same, torch.eye(20).bool()).recall_at_10 == 0.0


def test_chance_recall_equals_the_mean_over_all_orders() -> None:
    correct = T([[True, True, False, False, False], [False, False, True, False, False]])
    for k in (1, 2, 3, 10):
        hits = [
            any(row[place] for place in order[:k])
            for row in correct.tolist()
            for order in itertools.permutations(range(5))
        ]
        assert chance_recall(correct, k) == pytest.approx(sum(hits) / len(hits))


def test_median_rank_is_the_floor_of_the_median() -> None:
    """Ranks 0, 0, 1, 3 from 0: the median is 0.5, its floor plus one is 1 (the published form)."""
    scores_by_image = T([[9.0, 0, 0, 0], [0, 9.0, 0, 0], [5.0, 0, 4.0, 0], [4.0, 3.0, 2.0, 1.0]])
    images, texts = Gaussian.point(scores_by_image), Gaussian.point(torch.eye(4))
    found = evaluate_retrieval(images, texts, torch.eye(4, dtype=torch.bool), "mean")
    assert (found.median_rank, found.mean_rank) == (1.0, 2.0)
    assert (found.recall_at_1, found.recall_at_5, found.recall_at_10) == (0.5, 1.0, 1.0)


# ---------------------------------------------------------------------------------------------------------------------
# R-precision and mAP@R


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("block", [1, 3, 1024])
def test_precision_at_r_equals_a_walk_down_each_list(seed: int, block: int) -> None:
    queries, candidates = gaussians(7, seed), gaussians(12, seed + 100)
    noise = torch.Generator().manual_seed(seed)
    correct = torch.rand(7, 12, generator=noise) < 0.4
    correct[torch.arange(7), torch.randint(12, (7,), generator=noise)] = True
    if seed == 0:  # candidates that tie
        candidates = candidates[[0] * 6 + [1] * 6]
    scores = retrieval_scores(queries, candidates).tolist()
    precisions, averages = [], []
    for row, right in zip(scores, correct.tolist(), strict=True):
        order = sorted(range(12), key=lambda place: (-row[place], right[place]))
        size, found, total = sum(right), 0, 0.0
        for k, place in enumerate(order[:size], 1):
            if right[place]:
                found += 1
                total += found / k
        precisions.append(found / size)
        averages.append(total / size)
    result = precision_at_r(queries, candidates, correct, block=block)
    assert result.r_precision == pytest.approx(sum(precisions) / 7)
    assert result.map_at_r == pytest.approx(sum(averages) / 7)


def test_precision_at_r_with_one_correct_answer_is_recall_at_1() -> None:
    queries, candidates = gaussians(9, 0), gaussians(9, 1)
    correct = torch.eye(9, dtype=torch.bool)
    result = precision_at_r(queries, candidates, correct)
    assert result.r_precision == result.map_at_r == evaluate_retrieval(queries, candidates, correct).recall_at_1


def test_precision_at_r_without_correct_answers_or_with_nan_is_an_error() -> None:
    queries = gaussians(2, 0)
    with pytest.raises(ValueError, match="each needs a correct candidate"):
        precision_at_r(queries, queries, T([[True, False], [False, False]]))
    broken = Gaussian(queries.mean * torch.nan, queries.log_var)
    with pytest.raises(ValueError, match="scores hold NaN"):
        precision_at_r(broken, queries, torch.eye(2, dtype=torch.bool))


@pytest.mark.parametrize("shape", [(2, 2), (3, 2), (2, 3), (3, 5)])
def test_correct_answers_of_another_shape_are_an_error(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        precision_at_r(gaussians(3, 0), gaussians(4, 1), torch.ones(shape, dtype=torch.bool))


@pytest.mark.parametrize("measure", [precision_at_r, evaluate_retrieval])
def test_no_query_is_an_error(measure: Callable[..., object]) -> None:
    with pytest.raises(ValueError, match="there must be a query"):
        measure(gaussians(0, 0), gaussians(4, 1), torch.ones(0, 4, dtype=torch.bool))


def test_an_unknown_score_is_an_error() -> None:
    with pytest.raises(ValueError, match="score is 'cosine': it must be one of csd, mean"):
        evaluate_retrieval(gaussians(3, 0), gaussians(3, 1), torch.eye(3).bool(), "cosine")  # type: ignore[arg-type]
