"""`SearchCalibration`: what a search may promise, from queries whose right images are known, or that have none.

Two scores of each query are kept: of its nearest right image, and of the nearest other one, which is what a search
finds if no right image is there. Larger is nearer. Decoys, queries that surely match nothing, have the second alone.
n queries, K nearest images, N images in the collection.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from prolip.calibration.calibration import Subject, load_parts, reading, save_parts
from prolip.calibration.config import QueryKind
from prolip.calibration.conformal import conformal_threshold
from prolip.calibration.fitting import fit_logistic
from prolip.errors import check

DEPTH = 50
"""Place of the image whose score says how near a collection is to a query."""
_FORMAT = "search 1"


class Limits(NamedTuple):
    """Which results of a query are shown."""

    shown: float
    """Nothing is shown unless the best score is above this."""
    within: float
    """Smallest score of a result that is shown."""
    contained: float | None
    """Estimated share of queries with a right image for which one is shown; None for decoys."""


class KnownQueries(NamedTuple):
    """Scores of queries of one kind, and what was fitted to them."""

    right: Tensor
    """f64 [n], of the nearest right image; empty for decoys, as `match`."""
    wrong: Tensor
    """f64 [n], of the nearest image after the right ones were taken out."""
    match: Tensor
    """f64 [2]: a result is right with probability sigmoid(match[0] * score + match[1])."""

    def limits(self, contains_right: float | None, max_wrong: float | None, part: float = 1) -> Limits:
        """The thresholds that keep one promise or both, for queries that are exchangeable with these.

        - Coverage: if there is a right image, one is within the results with probability `contains_right` (split
          conformal prediction of its score, arXiv:2107.07511).
        - Restraint: if there is none, something is shown with at most probability `max_wrong` (the same of the best
          wrong image).

        With both, restraint comes first, and `contained` may be less than `contains_right`.

        Args:
            contains_right: between 0 and 1; None for no such promise.
            max_wrong: between 0 and 1; None for no such promise.
            part: share of the collection to search that is as large as the one that `wrong` is from, at most 1.
                `max_wrong` shrinks by it: the whole is wrong if one of its parts is.

        Raises:
            UserError: a promise is out of range, or decoys cannot make it.
        """
        shown, within = -math.inf, -math.inf
        for name, value in (("contains_right", contains_right), ("max_wrong", max_wrong)):
            check(value is None or 0 < value < 1, name, "must be between 0 and 1", value)
        if contains_right is not None:
            check(len(self.right), "contains_right", "must be left out: decoys have no right images", contains_right)
            within = -conformal_threshold(-self.right, contains_right)
        if max_wrong is not None:
            shown = conformal_threshold(self.wrong, 1 - max_wrong * part)
        if not len(self.right):
            return Limits(shown, within, None)
        kept = (torch.maximum(self.right, self.wrong) > shown) & (self.right >= within)
        return Limits(shown, within, float(kept.sum()) / (len(kept) + 1))

    def probability(self, scores: Tensor, part: float = 1) -> Tensor:
        """Probability that results with these scores are right, f64.

        The odds shrink by `part`, as if the larger collection had no more right images.
        """
        factor, bias = self.match.tolist()
        logits: Tensor = factor * scores.double() + bias + math.log(part)
        return logits.sigmoid()


@dataclass(frozen=True, kw_only=True)
class SearchCalibration:
    """A model's scores of queries whose right images are known."""

    subject: Subject
    """Without labels."""
    score: Literal["csd", "mean"]
    """`csd` or `mean` (`prolip.metrics.retrieval_scores`)."""
    num_images: int
    """N of the collection that `wrong` is from."""
    text: KnownQueries
    image: KnownQueries
    """Image queries; without any if no two images show the same."""
    words: list[int] = field(default_factory=list)
    """How many each decoy has; empty without decoys."""
    depth_scores: list[float] = field(default_factory=list)
    """Each decoy's score of the image at place `DEPTH`, or of the last one."""

    def known(self, kind: QueryKind) -> KnownQueries:
        """Of one kind; a UserError if there are none."""
        known = self.text if kind == "text" else self.image
        check(len(known.wrong), "calibration", f"must have {kind} queries", self.subject.data)
        return known

    def part(self, num_images: int) -> float:
        """See `KnownQueries.limits`."""
        return min(1, self.num_images / max(1, num_images))

    def limits(
        self, kind: QueryKind, num_images: int, *, contains_right: float | None = None, max_wrong: float | None = None
    ) -> Limits:
        """`KnownQueries.limits` for `num_images` images; UserError also without such queries."""
        return self.known(kind).limits(contains_right, max_wrong, self.part(num_images))

    def probability(self, kind: QueryKind, scores: Tensor, num_images: int) -> Tensor:
        """`KnownQueries.probability` in `num_images` images; UserError without such queries."""
        return self.known(kind).probability(scores, self.part(num_images))


def fit_queries(right: Tensor, wrong: Tensor, *, absent_share: float = 0.5, seed: int = 0) -> KnownQueries:
    """What is kept of queries of one kind.

    Probabilities are fitted to the K best results of each query (Platt scaling, with its smoothed targets), after the
    right images of a random share of the queries were taken out.

    Args:
        right: [n, K], scores of each query's nearest right images, descending; minus infinity after the last.
        wrong: [n, K], the same of all other images.
        absent_share: share of queries that nothing matches, from 0 to 1.
    """
    if len(right) == 0:
        return KnownQueries(*torch.zeros(3, 0, dtype=torch.float64))
    absent = torch.rand(len(right), generator=torch.Generator().manual_seed(seed)) < absent_share
    found = torch.cat([wrong, right.masked_fill(absent[:, None], -math.inf)], dim=1).double()
    scores, places = found.sort(dim=1, descending=True, stable=True)
    shown = scores.isfinite() & (torch.arange(scores.shape[1]) < wrong.shape[1])
    correct = (places >= wrong.shape[1])[shown]
    count = correct.sum()
    target = torch.where(correct, (count + 1) / (count + 2), 1 / (len(correct) - count + 2))
    match = fit_logistic(scores[shown][:, None], target)
    return KnownQueries(right[:, 0].double(), wrong[:, 0].double(), match)


# ---- The file -------------------------------------------------------------------------------------------------------

_PARTS = {"text": KnownQueries, "image": KnownQueries}


def save_search_calibration(found: SearchCalibration, path: Path) -> None:
    """To a safetensors file."""
    save_parts(found, path, ("subject", "score", "num_images", "words", "depth_scores"), tuple(_PARTS), _FORMAT)


def is_search_calibration(path: Path) -> bool:
    """Whether a file is a calibration of searches; a UserError if it is none at all."""
    with reading(path), safe_open(path, framework="pt") as file:
        return (file.metadata() or {}).get("format") == _FORMAT


def load_search_calibration(path: Path) -> SearchCalibration:
    """Undo `save_search_calibration`; a UserError for another file, or none."""
    with reading(path):
        return SearchCalibration(**load_parts(path, _PARTS, _FORMAT))
