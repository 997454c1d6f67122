"""HierarCaps: from the caption nearest to a picture up to the root, which captions are met (SPEC §9).

HierarImgs is the same walk with the sides exchanged: from the picture nearest to a caption up to a root, which pictures
of a hierarchy of pictures are met. `traverse` takes either; what it calls images are the walk's queries.

N images, L captions an image (coarse to fine), T = N * L captions in all, D dimensions, S steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from prolip.eval.csv_rows import read_csv
from prolip.eval.inclusion_search import most_including
from prolip.gaussian import Gaussian
from prolip.pairs import inclusion_matrix

Root = Literal["text", "inclusion", "both"]
InclusionForm = Literal["official", "exact"]

MAX_SCORES = 2**22
"""Scores of images with all captions that are held at a time."""
_FOLLOWED = 16
"""Captions that are followed over an image's way, at first: rarely do more lie above where the ends cross."""


@dataclass(frozen=True, kw_only=True)
class TraversalConfig:
    """Where the walk ends and how finely it is cut."""

    root: Root = "text"
    """"text": the embedding of the empty caption. "inclusion": the caption that includes the image most. "both": their
    normalised sum."""
    inclusion: InclusionForm = "official"
    """Which score finds the including caption: the published one-sided test, or H."""
    num_steps: int = 50
    root_only: bool = False
    """Query the root alone instead of walking to it."""
    root_weight: float = 1.0
    """Factor of the including caption beside the text root (the published `n_root` adds it that many times)."""


class Traversal(NamedTuple):
    """Per image, shares in [0, 1], f64 [N]."""

    precision: Tensor
    """Met captions that belong to the image / captions met (as distinct strings)."""
    recall: Tensor
    """The image's captions that were met / L."""
    any_found: Tensor
    """1 where at least one was met."""


class Hierarchies(NamedTuple):
    """Pictures and their captions from general to specific, as HierarCaps comes."""

    captions: list[list[str]]
    """[N][L]"""
    caption_ids: Tensor
    """i64 [N, L]; equal ids are equal strings."""
    image_urls: list[str]


def read_hierarcaps(path: Path) -> Hierarchies:
    """The table of HierarCaps: columns `captions` (levels joined by " => ") and `image_url`.

    Raises:
        ValueError: a column is missing, there is no row, or rows differ in their number of levels.
    """
    captions, image_urls = read_levels(path, "captions", "image_url")
    return Hierarchies(captions, caption_ids(captions), image_urls)


def read_levels(path: Path, levels: str, beside: str) -> tuple[list[list[str]], list[str]]:
    """Two columns of a table: one of levels from general to specific joined by " => ", [N][L], and one beside it, [N].

    Raises:
        ValueError: a column is missing, there is no row, or rows differ in their number of levels.
    """
    rows = read_csv(path)
    if not rows or not {levels, beside} <= rows[0].keys():
        raise ValueError(f"{path} is no table with columns {levels} and {beside}")
    found = [[level.strip() for level in row[levels].split("=>")] for row in rows]
    if len({len(some) for some in found}) != 1:
        raise ValueError(f"{path}: rows differ in their number of levels")
    return found, [row[beside] for row in rows]


def caption_ids(captions: Sequence[Sequence[str]]) -> Tensor:
    """Equal ids for equal strings, i64 [N, L]."""
    places: dict[str, int] = {}
    return torch.tensor([[places.setdefault(caption, len(places)) for caption in levels] for levels in captions])


def mean_root(items: Gaussian) -> Tensor:
    """The normalised mean of all items' means, [D]: a root for a hierarchy of pictures, which have no empty one."""
    return F.normalize(items.flatten().mean.mean(dim=0), dim=0)


def including_captions(images: Gaussian, captions: Gaussian, form: InclusionForm = "official") -> Tensor:
    """Index of the caption that includes each image most, i64 [N]."""
    if form == "official":
        return most_including(images, captions)
    return inclusion_matrix(images, captions).argmax(dim=1)


def traverse(
    images: Gaussian,
    captions: Gaussian,
    caption_ids: Tensor,
    text_root: Tensor,
    config: TraversalConfig,
    *,
    including: Tensor | None = None,
) -> Traversal:
    """Walks from each image's nearest caption to the root and scores the captions nearest to the way.

    Args:
        images: [N, D], unit means.
        captions: [N, L, D], unit means.
        caption_ids: i64 [N, L]; equal ids are equal strings.
        text_root: [D], mean of the empty caption (unused with root "inclusion").
        config: the walk.
        including: what `including_captions` gives, for a caller that walks several times; otherwise it is computed.

    A query normalise(start - (start - root) * k / S) is a blend of two vectors, and the normalisation changes no
    ranking: its scores are the same blend of the start's and the root's scores, so no query is ever embedded.
    """
    texts, flat_ids = captions.flatten(), caption_ids.flatten()
    if including is None and config.root != "text":
        including = including_captions(images, texts, config.inclusion)
    parts: list[Traversal] = []
    step = max(1, MAX_SCORES // len(texts.mean))
    for first in range(0, len(images.mean), step):
        rows = slice(first, first + step)
        block = images.rows(rows)
        start = texts.mean[(block.mean @ texts.mean.T).argmax(dim=1)]
        # The text root is everyone's, [1, D].
        root = _roots(None if including is None else texts.mean[including[rows]], text_root, config)
        met = met_captions(start @ texts.mean.T, root @ texts.mean.T, config)
        parts.append(score_met_captions(flat_ids[met], caption_ids[rows]))
    return Traversal(*(torch.cat(column) for column in zip(*parts, strict=True)))


def score_met_captions(met: Tensor, own: Tensor) -> Traversal:
    """Precision, recall and any-recall of the captions met.

    Args:
        met: i64 [N, S], ids of the captions met, with repeats.
        own: i64 [N, L], ids of the image's captions.
    """
    met = met.sort(dim=1).values
    new = torch.ones_like(met, dtype=torch.bool)
    new[:, 1:] = met[:, 1:] != met[:, :-1]
    belongs = (met[:, :, None] == own[:, None, :]).any(dim=2)
    found = (own[:, :, None] == met[:, None, :]).any(dim=2)
    return Traversal(
        precision=(new & belongs).sum(dim=1).double() / new.sum(dim=1),
        recall=found.double().mean(dim=1),
        any_found=found.any(dim=1).double(),
    )


def _roots(including: Tensor | None, text_root: Tensor, config: TraversalConfig) -> Tensor:
    """Unit root of each walk, from the including captions' means [N, D]; the text root is one for all, [1, D]."""
    if config.root == "text" or including is None:
        return text_root[None]
    top = including * config.root_weight
    return F.normalize(top if config.root == "inclusion" else top + text_root, dim=-1)


def met_captions(start_scores: Tensor, root_scores: Tensor, config: TraversalConfig) -> Tensor:
    """Index of the best caption at each step from start to root, i64 [N, S]; the root is never reached (SPEC §9).

    A caption's score is a line over the way from start [N, T] to root [N, T] or [1, T]. Whoever is best somewhere on it
    lies above the first and the last best one where those two cross: few captions do, and only they are followed.
    """
    if config.root_only:
        return root_scores.argmax(dim=1, keepdim=True).expand(len(start_scores), -1)
    best_at_root = root_scores.argmax(dim=1).expand(len(start_scores))
    best = torch.stack([start_scores.argmax(dim=1), best_at_root], dim=1)
    root_scores = root_scores.expand(len(start_scores), -1)
    at_start, at_root = start_scores.gather(1, best), root_scores.gather(1, best)
    lead, lag = at_start[:, :1] - at_start[:, 1:], at_root[:, 1:] - at_root[:, :1]
    # Where both are one caption nothing crosses, and none lies above it at the root.
    crossing = torch.where(lead + lag > 0, lead / (lead + lag), 1.0).clamp(0.0, 1.0)
    scores = torch.lerp(start_scores, root_scores, crossing)
    bound = torch.lerp(at_start, at_root, crossing).amin(dim=1, keepdim=True)
    highest, count = scores.topk(min(_FOLLOWED, scores.shape[1]), dim=1), _FOLLOWED
    while count < scores.shape[1] and bool((highest.values[:, -1:] > bound).any()):
        count *= 4
        highest = scores.topk(min(count, scores.shape[1]), dim=1)
    # In order of their index, so that of equal ones the first is met, as among all.
    followed = torch.cat([best, highest.indices], dim=1).sort(dim=1).values
    at_start, at_root = start_scores.gather(1, followed), root_scores.gather(1, followed)
    steps = [
        torch.lerp(at_start, at_root, step / config.num_steps).argmax(dim=1, keepdim=True)
        for step in range(config.num_steps)
    ]
    return followed.gather(1, torch.cat(steps, dim=1))
