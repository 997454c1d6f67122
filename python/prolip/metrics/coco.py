"""Retrieval benchmarks on COCO Caption's test set: COCO 5K and 1K, CxC and ECCV Caption.

As in the package `eccv-caption`. Q queries, C candidates, D dimensions.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from prolip.errors import UserError
from prolip.gaussian import Gaussian
from prolip.metrics.config import Score
from prolip.metrics.retrieval import RECALL_AT, first_ranks, precision_at_r
from prolip.metrics.statistics import mean, mean_per_group, value_of

NUM_FOLDS = 5
"""COCO 1K averages over five folds, each searched separately."""


class Pairs(NamedTuple):
    """Correct candidates of each query, by the data set's ids."""

    image_to_text: Mapping[int, Sequence[int]]
    text_to_image: Mapping[int, Sequence[int]]


class CocoTruth(NamedTuple):
    """Correct pairs of each benchmark."""

    coco: Pairs
    """Each image and its five captions."""
    cxc: Pairs
    """CrissCrossed Captions: more pairs that people judged similar."""
    eccv: Pairs
    """ECCV Caption: some queries, with all correct answers."""
    caption_order: Sequence[int]
    """Caption ids in the order of COCO 1K's folds."""


class Shares(NamedTuple):
    """A measure of each query."""

    shares: Tensor
    """f64 [Q], each in [0, 1]."""
    folds: Tensor | None
    """i64 [Q], folds whose means are averaged (COCO 1K); else None."""
    uncertainty: Tensor | None = None
    """[Q], total variance; None with folds."""


def evaluate_coco(
    images: Gaussian,
    image_ids: Sequence[int],
    captions: Gaussian,
    caption_ids: Sequence[int],
    truth: CocoTruth,
    score: Score = "csd",
) -> dict[str, float]:
    """Means over queries of `coco_shares`, with its arguments, keys and errors."""
    found = coco_shares(images, image_ids, captions, caption_ids, truth, score)
    return {
        key: value_of(mean, shares) if folds is None else value_of(mean_per_group, shares, folds)
        for key, (shares, folds, _) in found.items()
    }


def coco_shares(
    images: Gaussian,
    image_ids: Sequence[int],
    captions: Gaussian,
    caption_ids: Sequence[int],
    truth: CocoTruth,
    score: Score = "csd",
) -> dict[str, Shares]:
    """All measures of the four benchmarks for each query, in [0, 1].

    Keys are SET_DIRECTION_MEASURE: `coco_1k`, `coco_5k`, `cxc`, `eccv`; `image_to_text`, `text_to_image`; `R@1`, `R@5`,
    `R@10`, and for ECCV Caption `r_precision` and `map_at_r`.

    Args:
        images: [Q, D], unit means.
        captions: [C, D], unit means.
        truth: of `prolip.evaluation.load_truth`.

    Raises:
        UserError: an id occurs twice, or a query of `truth` is missing.
    """
    pool, texts = _Side(images, image_ids, "image"), _Side(captions, caption_ids, "caption")
    measures: dict[str, Shares] = {}
    for way, back, queries, candidates in (
        ("image_to_text", "text_to_image", pool, texts),
        ("text_to_image", "image_to_text", texts, pool),
    ):
        for name, pairs in (("coco_5k", truth.coco), ("cxc", truth.cxc), ("eccv", truth.eccv)):
            wanted: Mapping[int, Sequence[int]] = getattr(pairs, way)
            asked, correct = queries.part(wanted).gaussian, _correct(wanted, candidates)
            ranks = first_ranks(asked, candidates.gaussian, correct, score)
            measures |= {f"{name}_{way}_R@{k}": Shares((ranks < k).double(), None, asked.total_var) for k in RECALL_AT}
            if name == "eccv":
                # A few correct answers are outside the test set, but count towards R.
                num_correct = torch.tensor([len(set(rights)) for rights in wanted.values()], device=ranks.device)
                found = precision_at_r(asked, candidates.gaussian, correct, score, num_correct=num_correct)
                measures |= {
                    f"eccv_{way}_{key}": Shares(some, None, asked.total_var) for key, some in found._asdict().items()
                }
        in_folds = []
        for fold in _folds(truth):
            wanted, part = getattr(fold, way), candidates.part(getattr(fold, back))
            in_folds.append(first_ranks(queries.part(wanted).gaussian, part.gaussian, _correct(wanted, part), score))
        ranks = torch.cat(in_folds)
        folds = torch.cat([torch.full_like(some, place) for place, some in enumerate(in_folds)])
        measures |= {f"coco_1k_{way}_R@{k}": Shares((ranks < k).double(), folds) for k in RECALL_AT}
    return measures


class _Side:
    def __init__(self, gaussian: Gaussian, ids: Sequence[int], kind: str) -> None:
        self.gaussian, self.kind = gaussian, kind
        self.places = {int(identity): row for row, identity in enumerate(ids)}
        if len(self.places) != len(gaussian.mean):
            raise UserError(
                f"{kind}_ids", f"must be distinct, one per {kind}", f"{len(self.places)} for {len(gaussian.mean)}"
            )

    def part(self, ids: Mapping[int, object]) -> "_Side":
        """The items with these ids, in their order."""
        absent = [identity for identity in ids if identity not in self.places]
        if absent:
            raise UserError(
                f"{self.kind}_ids", "must have all of the test set", f"{len(absent)} missing, such as {absent[0]}"
            )
        rows = torch.tensor([self.places[identity] for identity in ids], device=self.gaussian.mean.device)
        return _Side(self.gaussian.rows(rows), list(ids), self.kind)


def _correct(wanted: Mapping[int, Sequence[int]], candidates: _Side) -> Tensor:
    """bool [Q, C]; answers outside the candidates are ignored."""
    pairs = [
        (row, candidates.places[right])
        for row, rights in enumerate(wanted.values())
        for right in rights
        if right in candidates.places
    ]
    correct = torch.zeros(len(wanted), len(candidates.places), dtype=torch.bool)
    correct[tuple(torch.tensor(pairs).T)] = True
    return correct.to(candidates.gaussian.mean.device)


def _folds(truth: CocoTruth) -> list[Pairs]:
    size = len(truth.caption_order) // NUM_FOLDS
    folds = []
    for fold in range(NUM_FOLDS):
        ids = truth.caption_order[fold * size : (fold + 1) * size]
        of_captions = {caption: truth.coco.text_to_image[caption] for caption in ids}
        images = dict.fromkeys(rights[0] for rights in of_captions.values())
        folds.append(Pairs({image: truth.coco.image_to_text[image] for image in images}, of_captions))
    return folds
