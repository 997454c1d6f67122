"""Count variances from a bank of unlabelled embeddings (`prolip adapt --method counted`).

N queries, K items, D embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from prolip.adapt.config import CountedConfig
from prolip.adapt.pairs import unit
from prolip.embeddings.config import Kind
from prolip.embeddings.storage import Manifest, complete_parts, sample_rows
from prolip.errors import check
from prolip.models.config import CountedHeadConfig
from prolip.models.counted import CountedHead
from prolip.store.folder import Folder

_ROUNDS = 3
"""Rounds of either iteration below; more change little."""
_CLUSTER_DIMENSIONS = 10.0
"""Weight of a query's distance to a cluster, as of a Gaussian of so many independent dimensions. Embeddings have more,
but then the largest clusters swallow their neighbours (docs/results.md)."""
_MIN_EVENNESS = 0.5


class Count(NamedTuple):
    """What a bank of queries says about a sample of items."""

    offset: Tensor
    """[N]"""
    weight: Tensor
    """[N]"""
    smoothing: float
    evenness: float
    """Effective number of items that the queries find, as a share of what as many queries of equally frequent items
    would find. It is small if the bank is not like the items."""


def count(queries: Tensor, items: Tensor, scale: float) -> Count:
    """Count how queries choose among items, as if all items were sought equally often.

    Items of the same frequency would be sought equally often, and a softmax over all queries would count hubs alone.
    Frequencies are estimated, and queries weighted by their inverse.

    Args:
        queries: [N, D], of unit norm.
        items: [K, D], of unit norm, K at most N: what the queries choose from.
        scale: of the model's similarity.
    """
    logits = scale * queries @ items.T
    found = logits.softmax(1).sum(0)
    likely = _posterior(logits, queries)
    # Half a query more, so that an item that few find does not give these few a large weight.
    weight = (likely / (likely.sum(0) + 0.5)).sum(1)
    weight *= len(items) / weight.sum()
    smoothing = max(0.1, 0.3 * len(items) / len(queries))
    hubness = torch.zeros_like(found)
    for _ in range(_ROUNDS):
        offset = (logits - hubness).logsumexp(1)
        counts = weight @ (logits - offset[:, None]).exp()
        hubness = ((counts + smoothing) / (1.0 + smoothing)).log()
    evenness = math.exp(_entropy(found) - _expected_entropy(len(queries), len(items)))
    return Count(offset, weight, smoothing, evenness)


def _posterior(logits: Tensor, queries: Tensor) -> Tensor:
    """Probabilities of items [N, K] for queries, by their logits and by clusters of the queries themselves.

    A query's cluster leaves the query out. Text may mistake one class for another; images of a class are still near
    each other.
    """
    likely = logits.softmax(1)
    centred = queries - queries.mean(0)
    length = centred.square().sum(1, keepdim=True)
    for _ in range(_ROUNDS):
        sums = likely.T @ centred
        # One query more, at the centre: of a cluster of one query, nothing else would be left but rounding.
        others = likely.sum(0) - likely + 1.0
        products = centred @ sums.T
        distance = (
            length
            - 2.0 * (products - likely * length) / others
            + (sums.square().sum(1) - 2.0 * likely * products + likely.square() * length) / others.square()
        )
        variance = (likely * distance).sum(1).mean().clamp(min=1e-12)
        likely = (logits - 0.5 * _CLUSTER_DIMENSIONS * distance / variance).softmax(1)
    return likely


def _entropy(counts: Tensor) -> float:
    return float(torch.special.entr(counts / counts.sum()).sum())


def _expected_entropy(queries: int, items: int) -> float:
    """Entropy of the counts of so many queries, each of an item drawn uniformly; the counts are then Poisson."""
    rate = queries / items
    numbers = torch.arange(1.0, 2.0 * rate + 50.0, dtype=torch.float64)
    chances = (numbers * math.log(rate) - rate - (numbers + 1.0).lgamma()).exp()
    return math.log(queries) - float((chances * torch.xlogy(numbers, numbers)).sum()) / rate


def counted_head(
    queries: Tensor, items: Tensor, scale: float, config: CountedConfig
) -> tuple[CountedHead, Count | None]:
    """The head of one kind, from a bank of the other kind's embeddings, and what softmax counted.

    Args:
        queries: [N, D], of unit norm, may be empty; of the other kind.
        items: [K, D], of unit norm, may be empty; of the head's kind. More than N are not used.
        scale: of the model's similarity.
        config: kernel and strength.
    """
    items = items[: len(queries)]
    kernel = config.kernel or ("softmax" if len(items) or not len(queries) else "nearest")
    head = CountedHead(CountedHeadConfig(queries=len(queries), kernel=kernel), queries.shape[1])
    head.queries.copy_(queries)
    head.scale.fill_(scale)
    strength = {"softmax": 1.0, "nearest": 0.5}[kernel] if config.strength is None else config.strength
    if kernel == "nearest" or not len(queries):
        head.factor.fill_(2.0 * strength)
        return head, None
    check(len(items), "counted.kernel", "softmax needs a bank of texts and of images", kernel)
    counted = count(queries, items, scale)
    if config.strength is None and counted.evenness < _MIN_EVENNESS:
        strength = 0.0
    head.offset.copy_(counted.offset)
    head.weight.copy_(counted.weight)
    head.smoothing.fill_(counted.smoothing)
    head.factor.fill_(2.0 / scale * strength)
    return head, counted


def read_bank(folders: Sequence[str], kind: Kind, size: int) -> Tensor:
    """A random sample of at most `size` embeddings of a kind, f32 [N, D] of unit norm, in random order."""
    parts = [
        part
        for folder in map(Folder, folders)
        if Manifest.read(folder).rows.get(kind)
        for part in complete_parts(folder, kind)[1]
    ]
    dim = Manifest.read(Folder(folders[0])).dim
    found = torch.empty(min(size, sum(part.count or 0 for part in parts)), dim)
    for part, sampled in sample_rows(parts, size):
        found[sampled.places] = unit(sampled.mean, part.path, dim)
    return found
