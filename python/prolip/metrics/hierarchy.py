"""Walks through a hierarchy of items up to its root.

HierarCaps's walk (docs/specification.md, section 9) starts at the item nearest to the query, moves straight to the
root, and visits the nearest item at each step. HierarCaps's queries are images and its items captions; in HierarImgs it
is the other way round.

N queries, L levels from general to specific, T = N * L items, D dimensions, S steps.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from prolip.gaussian import Gaussian, dot_products, inclusion_matrix, inclusion_score, official_inclusion_test_matrix
from prolip.metrics.config import InclusionForm, TraversalConfig
from prolip.metrics.statistics import auroc, average_precision, value_of

MAX_SCORES = 2**22
"""Maximum scores in memory."""


class Traversal(NamedTuple):
    """How well each walk went: shares in [0, 1], f64 [N]."""

    precision: Tensor
    """Share of visited items that belong to the query; equal items count once."""
    recall: Tensor
    """Share of the query's items that were visited."""
    any_found: Tensor
    """1 if at least one item of the query was visited."""


def string_ids(rows: Sequence[Sequence[str]]) -> Tensor:
    """Equal for equal strings, i64 [N, L]."""
    ids: dict[str, int] = {}
    return torch.tensor([[ids.setdefault(text, len(ids)) for text in row] for row in rows])


def mean_root(items: Gaussian) -> Tensor:
    """Normalised mean of all means, [D]: a root for images, which have no empty caption."""
    return F.normalize(items.flatten().mean.mean(dim=0), dim=0)


def including_items(queries: Gaussian, items: Gaussian, form: InclusionForm = "official") -> Tensor:
    """The item, [T, D], that includes each query, [N, D], most: by the released one-sided test or by H, i64 [N]."""
    matrix = official_inclusion_test_matrix if form == "official" else inclusion_matrix
    rows = max(1, MAX_SCORES // len(items.mean))
    blocks = (queries.rows(slice(first, first + rows)) for first in range(0, len(queries.mean), rows))
    return torch.cat([matrix(block, items).argmax(dim=1) for block in blocks])


def traverse(
    queries: Gaussian,
    items: Gaussian,
    item_ids: Tensor,
    root: Tensor,
    config: TraversalConfig,
    *,
    including: Tensor | None = None,
) -> Traversal:
    """Walk from the item nearest to each query to the root, and score the visited items.

    A step's position is normalise(start - (start - root) * k / S). Normalising changes no ranking, so a step's scores
    are the same blend of those at start and root, and no position is formed.

    Args:
        queries: [N, D], unit means.
        items: [N, L, D], unit means.
        item_ids: i64 [N, L]; equal ids are equal items.
        root: [D]; not used with config.root "inclusion".
        including: of `including_items`, for several walks; computed if None.
    """
    flat, flat_ids = items.flatten(), item_ids.flatten()
    if including is None and config.root != "text":
        including = including_items(queries, flat, config.inclusion)
    blocks: list[Traversal] = []
    step = max(1, MAX_SCORES // len(flat.mean))
    for first in range(0, len(queries.mean), step):
        rows = slice(first, first + step)
        block = queries.rows(rows)
        ends = root[None]  # for all walks
        if including is not None and config.root != "text":
            top = flat.mean[including[rows]] * config.root_weight
            ends = F.normalize(top if config.root == "inclusion" else top + root, dim=-1)
        visited = items_on_walk(block.mean, flat.mean, ends, config)
        blocks.append(score_visited(flat_ids[visited], item_ids[rows]))
    return Traversal(*(torch.cat(column) for column in zip(*blocks, strict=True)))


def items_on_walk(queries: Tensor, items: Tensor, ends: Tensor, config: TraversalConfig) -> Tensor:
    """The item, [T, D], at each step from the one nearest to a query, [N, D], to its end, i64 [N, S].

    `ends` are [N, D], or [1, D] for all; walks stop before them.
    """
    start = items[dot_products(queries, items).argmax(dim=1)]
    return visited_items(dot_products(start, items), dot_products(ends, items), config)


def entailment(items: Gaussian, item_ids: Tensor) -> dict[tuple[str, str, str], float]:
    """AUC (`auroc`) and `average_precision` of entailed pairs, in [0, 1], by figure, other pairs and score.

    After ARGENT's probabilistic entailment protocol (PEP, arXiv:2603.23311), whose abstract names the two figures;
    pairs and scores are ours. The specific item of two levels entails the general one. Other pairs are these reversed,
    or the specific item with the general one of the hierarchy half the table away. Pairs of equal items are left out;
    without other pairs AUC is NaN.

    Args:
        items: [N, L, D], the most general level first.
        item_ids: i64 [N, L]; equal ids are equal items.
    """

    def score(a: Gaussian, b: Gaussian) -> Tensor:
        """How far each of a, [P, D], lies in that of b, by each of `names`, f64 [3, P]."""
        distance = (a.mean - b.mean).square().sum(-1) + (a.total_var + b.total_var)
        return torch.stack([inclusion_score(a, b).sum(-1), b.total_var - a.total_var, -distance])

    names = ("inclusion", "uncertainty", "csd")
    general, specific = torch.triu_indices(item_ids.shape[1], item_ids.shape[1], 1)
    inner, outer = (items.to(torch.float64).rows(levels).flatten() for levels in (specific, general))
    ids, half = item_ids[:, general], len(item_ids) // 2
    kept = (ids != item_ids[:, specific]).flatten()
    apart = kept & (ids != ids.roll(half, 0)).flatten()
    away = outer.rows(torch.arange(len(kept)).reshape(ids.shape).roll(half, 0).flatten())
    entailed, found = score(inner, outer)[:, kept], {}
    others = {"reversed pairs": score(outer, inner)[:, kept], "other hierarchies": score(inner, away)[:, apart]}
    for kind, scores in others.items():
        both = torch.cat([entailed, scores], dim=1)
        positive = torch.arange(both.shape[1]) < entailed.shape[1]
        for name, column in zip(names, both, strict=True):
            found["auroc", kind, name] = value_of(auroc, column, positive)
            found["average_precision", kind, name] = value_of(average_precision, column, positive)
    return found


def score_visited(visited: Tensor, own: Tensor) -> Traversal:
    """Score visited ids, i64 [N, S], which may repeat, by the queries' own, i64 [N, L]."""
    visited = visited.sort(dim=1).values
    new = torch.ones_like(visited, dtype=torch.bool)
    new[:, 1:] = visited[:, 1:] != visited[:, :-1]
    belongs = (visited[:, :, None] == own[:, None, :]).any(dim=2)
    found = (own[:, :, None] == visited[:, None, :]).any(dim=2)
    return Traversal(
        precision=(new & belongs).sum(dim=1).double() / new.sum(dim=1),
        recall=found.double().mean(dim=1),
        any_found=found.any(dim=1).double(),
    )


def visited_items(start_scores: Tensor, root_scores: Tensor, config: TraversalConfig) -> Tensor:
    """Index of the best item at each step from start to root, i64 [N, S]; the walk stops before the root.

    Scores are [N, T], at the root also [1, T].
    """
    if config.root_only:
        return root_scores.argmax(dim=1, keepdim=True).expand(len(start_scores), config.num_steps)
    shares = (step / config.num_steps for step in range(config.num_steps))
    return torch.stack([torch.lerp(start_scores, root_scores, share).argmax(dim=1) for share in shares], dim=1)
