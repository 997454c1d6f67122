"""COCO 5K and 1K, CxC and ECCV Caption: retrieval between the COCO Caption test pictures and their captions.

Which pairs are right comes with the package `eccv-caption` (extra `eval`), whose files are read and whose loops are not
run; its figures are repeated exactly. Q queries, C candidates, D dimensions.
"""

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prolip.eval.config import Score
from prolip.eval.retrieval import RECALL_AT, first_ranks, precisions_at_r
from prolip.gaussian import Gaussian

NUM_FOLDS = 5
"""COCO 1K: means over five parts of the test set, each searched alone."""


class Pairs(NamedTuple):
    """Right candidates of each query, by the data set's ids."""

    image_to_text: Mapping[int, Sequence[int]]
    text_to_image: Mapping[int, Sequence[int]]


class CocoTruth(NamedTuple):
    """What is right, by whom."""

    coco: Pairs
    """Every picture and its own five captions."""
    cxc: Pairs
    """CrissCrossed Captions: further pairs that people found alike."""
    eccv: Pairs
    """ECCV Caption: a part of the queries, with all their right answers."""
    caption_order: Sequence[int]
    """Caption ids in the order in which COCO 1K cuts them into folds."""


def load_truth(folder: Path | None = None) -> CocoTruth:
    """The pairs in a folder of the package's layout, by default in the installed package.

    Raises:
        ValueError: the package is not installed, or a file is missing.
    """
    if folder is None:
        spec = find_spec("eccv_caption")
        if spec is None or not spec.submodule_search_locations:
            raise ValueError("COCO, CxC and ECCV Caption need eccv-caption: pip install 'prolip[eval]'")
        folder = Path(spec.submodule_search_locations[0]) / "data"
    missing = [name for name in (*_FILES, _ORDER) if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{folder} has no {', '.join(missing)}")
    read = [_read(folder / name) for name in _FILES]
    coco, cxc, eccv = (Pairs(*read[first : first + 2]) for first in (0, 2, 4))
    return CocoTruth(coco, cxc, eccv, np.load(folder / _ORDER).tolist())


_FILES = [
    f"{whose}_{way}.json" for whose in ("original", "cxc", "eccv") for way in ("image_to_caption", "caption_to_image")
]
_ORDER = "coco_test_ids.npy"


def _read(path: Path) -> dict[int, list[int]]:
    content = json.loads(path.read_text(encoding="utf-8"))
    return {int(query): [int(right) for right in rights] for query, rights in content.items()}


class Shares(NamedTuple):
    """A figure of `coco_shares`, query by query."""

    shares: Tensor
    """f64 [Q], each query's share of 1."""
    folds: Tensor | None
    """i64 [Q], the fold of each query where the figure is the mean of the folds' means, as of COCO 1K."""


def evaluate_coco(
    images: Gaussian,
    image_ids: Sequence[int],
    captions: Gaussian,
    caption_ids: Sequence[int],
    truth: CocoTruth,
    score: Score = "csd",
) -> dict[str, float]:
    """Every figure of the four benchmarks, shares in [0, 1]: the means of `coco_shares`, whose keys and errors they
    have.
    """
    found = coco_shares(images, image_ids, captions, caption_ids, truth, score)
    return {key: _mean(*figure) for key, figure in found.items()}


def _mean(shares: Tensor, folds: Tensor | None) -> float:
    if folds is None:
        return float(shares.mean())
    return sum(float(shares[folds == fold].mean()) for fold in range(NUM_FOLDS)) / NUM_FOLDS


def coco_shares(
    images: Gaussian,
    image_ids: Sequence[int],
    captions: Gaussian,
    caption_ids: Sequence[int],
    truth: CocoTruth,
    score: Score = "csd",
) -> dict[str, Shares]:
    """Every figure of the four benchmarks, query by query.

    Keys are SET_DIRECTION_FIGURE: `coco_1k`, `coco_5k`, `cxc`, `eccv`; `image_to_text`, `text_to_image`; `R@1`, `R@5`,
    `R@10`, and for ECCV Caption `r_precision` and `map_at_r`.

    Args:
        images: [Q, D], unit means.
        image_ids: COCO's id of each.
        captions: [C, D], unit means.
        caption_ids: COCO's id of each.
        truth: see `load_truth`.
        score: see `retrieval_scores`.

    Raises:
        ValueError: an id stands twice, or a query of the truth was not given.
    """
    pictures, texts = _Side(images, image_ids, "picture"), _Side(captions, caption_ids, "caption")
    figures: dict[str, Shares] = {}
    for way, queries, candidates in (("image_to_text", pictures, texts), ("text_to_image", texts, pictures)):
        for name, pairs in (("coco_5k", truth.coco), ("cxc", truth.cxc), ("eccv", truth.eccv)):
            wanted: Mapping[int, Sequence[int]] = getattr(pairs, way)
            rows, correct = queries.rows(wanted), _correct(wanted, candidates)
            asked = queries.gaussian.rows(rows)
            ranks = first_ranks(asked, candidates.gaussian, correct, score)
            figures |= {f"{name}_{way}_R@{k}": Shares((ranks < k).double(), None) for k in RECALL_AT}
            if name == "eccv":
                # A few of its right answers are no captions of the test set: they count, though none can be found.
                num_correct = torch.tensor([len(set(rights)) for rights in wanted.values()], device=rows.device)
                found = precisions_at_r(asked, candidates.gaussian, correct, score, num_correct=num_correct)
                figures |= {f"eccv_{way}_{figure}": Shares(some, None) for figure, some in found._asdict().items()}
        ranks, folds = _ranks_in_folds(queries, candidates, _folds(truth), way, score)
        figures |= {f"coco_1k_{way}_R@{k}": Shares((ranks < k).double(), folds) for k in RECALL_AT}
    return figures


def _ranks_in_folds(
    queries: "_Side", candidates: "_Side", folds: Sequence[Pairs], way: str, score: Score
) -> tuple[Tensor, Tensor]:
    """Rank of each query's best right candidate within its fold, and its fold, i64 [Q]."""
    back = "text_to_image" if way == "image_to_text" else "image_to_text"
    ranks = []
    for fold in folds:
        wanted, part = getattr(fold, way), candidates.part(getattr(fold, back))
        asked = queries.gaussian.rows(queries.rows(wanted))
        ranks.append(first_ranks(asked, part.gaussian, _correct(wanted, part), score))
    places = torch.arange(len(ranks)).repeat_interleave(torch.tensor([len(some) for some in ranks]))
    return torch.cat(ranks), places.to(ranks[0].device)


class _Side:
    """Items of one kind and the row of each id."""

    def __init__(self, gaussian: Gaussian, ids: Sequence[int], kind: str) -> None:
        self.gaussian, self.kind = gaussian, kind
        self.places = {int(identity): row for row, identity in enumerate(ids)}
        if len(self.places) != len(gaussian.mean):
            raise ValueError(f"{len(gaussian.mean)} {kind}s and {len(self.places)} different ids do not go together")

    def rows(self, ids: Mapping[int, Sequence[int]]) -> Tensor:
        """Rows of the queries, i64 [Q]."""
        absent = [identity for identity in ids if identity not in self.places]
        if absent:
            raise ValueError(f"{len(absent)} {self.kind}s of the test set were not given, such as {absent[0]}")
        return torch.tensor([self.places[identity] for identity in ids], device=self.gaussian.mean.device)

    def part(self, ids: Mapping[int, Sequence[int]]) -> "_Side":
        """The items with these ids."""
        return _Side(self.gaussian.rows(self.rows(ids)), list(ids), self.kind)


def _correct(wanted: Mapping[int, Sequence[int]], candidates: _Side) -> Tensor:
    """Which candidates are right for which query, bool [Q, C]; right ones that are no candidates are left out."""
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
    """COCO's own pairs within each fold of captions and of the pictures that they belong to."""
    size = len(truth.caption_order) // NUM_FOLDS
    folds = []
    for fold in range(NUM_FOLDS):
        ids = truth.caption_order[fold * size : (fold + 1) * size]
        of_captions = {caption: truth.coco.text_to_image[caption] for caption in ids}
        pictures = dict.fromkeys(rights[0] for rights in of_captions.values())
        folds.append(Pairs({image: truth.coco.image_to_text[image] for image in pictures}, of_captions))
    return folds
