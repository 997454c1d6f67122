"""Compare scores that may tell whether a result is right, cross-validated (docs/how-to/search-that-can-say-no.md).

    python docs/search_scores.py --checkpoint runs/demo --known 'data/emoji/val-*.tar' \
        --data 'data/emoji/test-openmoji-*.tar' 'data/emoji/test-goog-*.tar' 'data/emoji/test-twtr-*.tar'
    python docs/search_scores.py --checkpoint runs/clothes --known clothes/check --data clothes/test \
        --caption_key cls --kind image

Q queries, N images, F features, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import tyro
from studies import print_table
from torch import Tensor

import prolip
from prolip.calibration.config import QueryKind
from prolip.calibration.conformal import conformal_threshold
from prolip.calibration.fitting import fit_logistic
from prolip.data.config import StoreConfig
from prolip.embeddings.embed import embed_captions
from prolip.evaluation.calibrate_search import Queries, embed_pairs, find_queries
from prolip.evaluation.datasets import open_dataset
from prolip.gaussian import Gaussian, inclusion_score
from prolip.metrics.retrieval import retrieval_scores
from prolip.metrics.statistics import auroc

METHODS = {
    "cosine": ("cosine",),
    "CSD": ("CSD",),
    "CSD against the background's mean and deviation": ("mean",),
    "CSD against the background's tail": ("tail",),
    "CSD and the query's variance": ("CSD", "query"),
    "CSD and both variances": ("CSD", "query", "image"),
    "CSD and inclusion": ("CSD", "inclusion"),
    "all": ("CSD", "mean", "tail", "query", "image", "inclusion"),
}
FOLDS, SHARE = 5, 0.9


@dataclass(frozen=True, kw_only=True)
class Options:
    """The comparison of scores."""

    checkpoint: str
    """A model."""
    known: str
    """Images like those to search: the background of each query."""
    data: tuple[str, ...]
    """Images with captions or classes. Figures are means over several."""
    caption_key: str = "txt"
    """As for `prolip calibrate search`."""
    kind: QueryKind = "text"
    """Of the queries."""
    num_resamples: int = 2000
    """Bootstrap resamples of the queries; a caption is drawn together in all of the data."""


def features_of(queries: Queries, images: Gaussian, known: Gaussian) -> dict[str, Tensor]:
    """What scores are made of, f64 [Q, N] each."""
    asked = queries.gaussian
    cosine, distance = (retrieval_scores(asked, images, score).double() for score in ("mean", "csd"))
    behind = retrieval_scores(asked, known, "csd").double()
    tail = behind.topk(max(2, len(known.mean) // 10), dim=1).values
    inclusion = [inclusion_score(images, asked.rows(slice(row, row + 1))).sum(dim=1) for row in range(len(cosine))]
    return {
        "cosine": cosine,
        "CSD": distance,
        "mean": (distance - behind.mean(dim=1, keepdim=True)) / behind.std(dim=1, keepdim=True),
        # As in the tail of an exponential distribution.
        "tail": (distance - tail[:, -1:]) / (tail - tail[:, -1:]).mean(dim=1, keepdim=True),
        "query": asked.total_var.double().log()[:, None].expand_as(cosine),
        "image": images.total_var.double().log().expand_as(cosine),
        "inclusion": torch.stack(inclusion).double(),
    }


def measure(features: Tensor, right: Tensor, others: Tensor) -> dict[str, Tensor]:
    """Figures of each query, [Q], by a logistic regression and thresholds of the other folds.

    Args:
        features: [Q, N, F]; one alone is the score.
        right: bool [Q, N].
        others: bool [Q, N], neither right nor the query itself.
    """
    count = len(right)
    fold = torch.randperm(count, generator=torch.Generator().manual_seed(0)) % FOLDS
    used = right | others
    features = (features - features[used].mean(dim=0)) / features[used].std(dim=0)
    found = {name: torch.zeros(count, dtype=torch.float64) for name in ("right", "wrong", "size", "kept", "shown")}
    for number in range(FOLDS):
        here, rest = fold == number, fold != number
        scores = features[..., 0]
        if features.shape[2] > 1:
            weights = fit_logistic(features[rest][used[rest]], right[rest][used[rest]], ridge=1e-6)
            scores = features @ weights[:-1] + weights[-1]
        nearest, wrong = (scores.masked_fill(~some, -math.inf).amax(dim=1) for some in (right, others))
        within = -conformal_threshold(-nearest[rest], SHARE)
        figures = {
            "right": nearest,
            "wrong": wrong,
            "size": ((scores >= within) & used).double().sum(dim=1) / used.sum(dim=1),
            "kept": nearest >= within,
            "shown": torch.maximum(nearest, wrong) > conformal_threshold(wrong[rest], SHARE),
        }
        for name, values in figures.items():
            found[name][here] = values[here].double()
    return found


def there(found: dict[str, Tensor], counts: Tensor) -> Tensor:
    """AUROC of whether a right image is there."""
    scores = torch.cat([torch.maximum(found["right"], found["wrong"]), found["wrong"]])
    return auroc(scores, torch.arange(len(scores)) < len(scores) // 2, counts.repeat(1, 2))


def first(found: dict[str, Tensor], counts: Tensor) -> Tensor:
    """AUROC of whether the first image is right."""
    return auroc(torch.maximum(found["right"], found["wrong"]), found["right"] > found["wrong"], counts)


def share(name: str, found: dict[str, Tensor], counts: Tensor) -> Tensor:
    """The mean of a figure."""
    return (counts * found[name]).sum(dim=1) / counts.sum(dim=1)


MEASURES: dict[str, Callable[[dict[str, Tensor], Tensor], Tensor]] = {
    "a right image is there": there,
    "the first is right": first,
    f"share of the images shown at contains_right {SHARE:g}": partial(share, "size"),
    f"queries answered at max_wrong {1 - SHARE:.2g}": partial(share, "shown"),
}


def run(options: Options) -> None:
    """Measure every score on every data set, and print a table."""
    model = prolip.load(options.checkpoint)

    def read(data: str) -> tuple[Gaussian, list[list[str]]]:
        return embed_pairs(model, open_dataset(data, StoreConfig()), 128, options.caption_key)

    known, asked, found = read(options.known)[0], list[list[str]](), list[dict[str, dict[str, Tensor]]]()
    for data in options.data:
        images, texts = read(data)
        captions = list(dict.fromkeys(text for some in texts for text in some))
        queries = find_queries(images, texts, partial(embed_captions, model))[options.kind]
        count = len(queries.right)
        asked.append(captions if options.kind == "text" else [str(row) for row in range(count)])
        right, others = (
            torch.zeros(count, len(texts), dtype=torch.bool),
            torch.ones(count, len(texts), dtype=torch.bool),
        )
        for row, places in enumerate(queries.right):
            right[row, places] = True
        if queries.itself is not None:
            others[torch.arange(count), queries.itself] = False
        features = features_of(queries, images, known)
        chosen = {name: torch.stack([features[one] for one in names], dim=-1) for name, names in METHODS.items()}
        found.append({name: measure(one, right, others & ~right) for name, one in chosen.items()})
    place = {text: row for row, text in enumerate(sorted({text for some in asked for text in some}))}
    draws = torch.Generator().manual_seed(1)
    rows = (torch.randint(len(place), (len(place),), generator=draws) for _ in range(options.num_resamples))
    counts = torch.stack([torch.ones(len(place)), *(torch.bincount(some, minlength=len(place)) for some in rows)])
    table: list[list[str]] = [[name] for name in METHODS]
    for figure in MEASURES.values():
        of = {
            name: torch.stack(
                [
                    figure(one[name], counts[:, [place[text] for text in some]].double())
                    for one, some in zip(found, asked, strict=True)
                ]
            ).mean(dim=0)
            for name in METHODS
        }
        for cells, name in zip(table, METHODS, strict=True):
            low, high = (of[name] - of["cosine"])[1:].nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
            more = "" if name == "cosine" else f" ({100 * low:+.1f} to {100 * high:+.1f})"
            cells.append(f"{100 * of[name][0]:.1f}{more}")
    print_table(["score", *MEASURES], table)


if __name__ == "__main__":
    run(tyro.cli(Options))
