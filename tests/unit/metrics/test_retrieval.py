"""Retrieval against a loop over queries, with ties, groups and several right answers."""

import itertools

import pytest
import torch
from tests.support.random_gaussians import gaussians
from tests.support.refusals import refusal_of

from prolip.gaussian import Gaussian, csd
from prolip.metrics.retrieval import (
    chance_recall,
    evaluate_retrieval,
    first_ranks,
    group_ranks,
    nearest_right_and_wrong,
    precision_at_r,
    rank_candidates,
    retrieval_scores,
    same_group,
)

T = torch.tensor


def test_scores_rank_by_the_sampled_distance_and_equal_ones_keep_their_order():
    queries, candidates = gaussians(7, 8, seed=0), gaussians(9, 8, seed=1)
    by_distance = torch.argsort(csd(queries, candidates), dim=1, stable=True)
    assert torch.equal(rank_candidates(retrieval_scores(queries, candidates)), by_distance)
    by_angle = torch.argsort(-(queries.mean @ candidates.mean.T), dim=1, stable=True)
    assert torch.equal(rank_candidates(retrieval_scores(queries, candidates, "mean")), by_angle)
    assert rank_candidates(T([[1.0, 2.0, 1.0, 2.0]])).tolist() == [[1, 3, 0, 2]]
    with refusal_of("score"):
        retrieval_scores(queries, candidates, "cosine")


@pytest.mark.parametrize("score", ["csd", "mean"])
def test_retrieval_metrics_equal_a_slow_loop(score):
    queries, candidates = gaussians(23, 8, seed=2), gaussians(31, 8, seed=3)
    groups = torch.arange(23) % 7, torch.arange(31) % 7
    scores = retrieval_scores(queries, candidates, score).tolist()
    ranks = []
    for q in range(23):
        order = sorted(range(31), key=lambda c: -scores[q][c])
        ranks.append(next(place for place, c in enumerate(order) if q % 7 == c % 7))
    result = evaluate_retrieval(queries, candidates, same_group(*groups), score)
    for k, recall in ((1, result.recall_at_1), (5, result.recall_at_5), (10, result.recall_at_10)):
        assert recall == pytest.approx(sum(rank < k for rank in ranks) / 23)
    assert result.mean_rank == pytest.approx(sum(ranks) / 23 + 1)
    assert result.median_rank == sorted(ranks)[11] + 1
    for block in (1, 7, 100):
        assert first_ranks(queries, candidates, same_group(*groups), score, block).tolist() == ranks
        assert group_ranks(queries, candidates, *groups, score, block).tolist() == ranks


def test_chance_recall_equals_the_mean_over_all_orders():
    correct = T([[True, True, False, False, False], [False, False, True, False, False]])
    for k in (1, 2, 3, 10):
        hits = [
            any(row[place] for place in order[:k])
            for row in correct.tolist()
            for order in itertools.permutations(range(5))
        ]
        assert chance_recall(correct, k) == pytest.approx(sum(hits) / len(hits))


def test_median_rank_is_the_floor_of_the_median():
    """Ranks 0, 0, 1, 3 from 0: the median is 0.5, its floor plus one is 1 (the published form)."""
    scores_by_image = T([[9.0, 0, 0, 0], [0, 9.0, 0, 0], [5.0, 0, 4.0, 0], [4.0, 3.0, 2.0, 1.0]])
    images, texts = Gaussian.point(scores_by_image), Gaussian.point(torch.eye(4))
    found = evaluate_retrieval(images, texts, torch.eye(4, dtype=torch.bool), "mean")
    assert (found.median_rank, found.mean_rank) == (1.0, 2.0)
    assert (found.recall_at_1, found.recall_at_5, found.recall_at_10) == (0.5, 1.0, 1.0)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("block", [3, 1024])
def test_precision_at_r_equals_a_walk_down_each_list(seed, block):
    queries, candidates = gaussians(7, 8, seed=seed), gaussians(12, 8, seed=seed + 100)
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
    assert result.r_precision.tolist() == pytest.approx(precisions)
    assert result.map_at_r.tolist() == pytest.approx(averages)


@pytest.mark.parametrize("measure", [precision_at_r, first_ranks])
def test_impossible_questions_are_errors(measure):
    some = gaussians(3, 4, seed=0)
    broken = Gaussian(some.mean * torch.nan, some.log_var)
    for queries, correct in (
        (some, torch.ones(3, 5).bool()),
        (some, torch.zeros(3, 3).bool()),
        (gaussians(0, 4, seed=0), torch.ones(0, 3).bool()),
        (broken, torch.eye(3).bool()),
    ):
        with pytest.raises(ValueError, match=r"^(scores|correct): "):
            measure(queries, some, correct)


@pytest.mark.parametrize("alone", [True, False])
def test_the_nearest_right_and_wrong_scores_equal_a_slow_loop(alone):
    items, right = gaussians(9, 8, seed=4), [[1, 8], [], [0], [4, 5, 6], [3], [3, 4], [3], [8], [0, 1, 2, 3, 4]]
    itself = torch.arange(9) if alone else None
    for block in (1, 4, 100):
        found = nearest_right_and_wrong(items, items, right, itself=itself, count=8, block=block)
        for row, scores in enumerate(retrieval_scores(items, items).double().tolist()):
            kinds = [[], []]
            for place in sorted(range(9), key=lambda place: -scores[place]):
                if place != row or not alone:
                    kinds[place not in right[row]].append(scores[place])
            for some, values in zip(found, kinds, strict=True):
                expected = (values + [-torch.inf] * 8)[:8]
                assert some[row].tolist() == pytest.approx(expected)
