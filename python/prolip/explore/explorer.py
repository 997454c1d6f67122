"""Compute what the page shows: similarities, uncertainties and classes of images and captions. No HTML here.

N items, C classes, K prompts per class, D dimensions.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from threading import Lock
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from prolip.data import DataError
from prolip.decisions.config import NO_CSD
from prolip.errors import UserError
from prolip.explore.items import Item
from prolip.explore.reliance import Doubt, Reliance, rely_on
from prolip.gaussian import Gaussian, concatenate, csd, csd_logits, inclusion_score
from prolip.metrics.bprw import PromptWeights, reweight_prompts
from prolip.metrics.config import BprwConfig, TraversalConfig
from prolip.metrics.hierarchy import visited_items
from prolip.metrics.prompts import encode_prompts
from prolip.metrics.zero_shot import aggregate_prompts, zero_shot_logits
from prolip.pretrained.classify import Decide
from prolip.pretrained.model import Model

log = logging.getLogger(__name__)

MAX_PROMPTS = 4096
"""Largest number of captions in one request, or of prompts over all classes."""
EVERYDAY = (
    "a picture",
    "an animal",
    "food and drink",
    "a person",
    "a red car in front of a house",
    "two small dogs that play in the snow",
)
"""Captions that set the range of uncertainties if there is no data set."""
_CACHED_CAPTIONS = 4096
"""Captions whose Gaussians are kept in memory."""
_EMBED_BATCH = 256
"""Images of the data set that are decoded and embedded at a time."""


class Range(NamedTuple):
    """A range of uncertainties."""

    low: float
    high: float
    of: str
    """The items of the range, in words."""


class Caption(NamedTuple):
    """A caption alone."""

    caption: str
    num_tokens: int
    """Number of tokens without padding."""
    uncertainty: float
    """Sum of the caption's variances."""


class CaptionView(NamedTuple):
    """A caption compared with an image."""

    caption: str
    uncertainty: float
    """Sum of the caption's variances."""
    similarity: float
    """Dot product of the means, in [-1, 1]."""
    distance: float
    """Sampled distance."""
    match: float | None
    """Probability of a match, as in training; None if the model has no bias."""
    image_in_caption: float
    """Inclusion H, mean over dimensions: positive if the image lies in the caption, negative if the caption lies in the
    image."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """An image compared with captions."""

    views: list[CaptionView]
    """The captions, nearest first."""
    uncertainty: float
    """Sum of the image's variances."""
    more_certain: float | None
    """Share of the data set's images that are more certain; None without a data set."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two captions compared with each other."""

    first: Caption
    second: Caption
    similarity: float
    distance: float
    first_in_second: float
    """Inclusion H, mean over dimensions: positive if the first lies in the second."""


@dataclass(frozen=True, kw_only=True)
class Stop:
    """A caption on the way from an image to the root."""

    view: CaptionView
    first_step: int
    last_step: int
    num_steps: int


@dataclass(frozen=True, kw_only=True)
class Classified:
    """The result of a zero-shot classifier, and the weights of its prompts."""

    names: list[str]
    templates: list[str]
    even: list[float] | None
    """Softmax over classes with even prompt weights, by means; None without an image."""
    weighted: list[float] | None
    """The same with re-weighted prompts."""
    weights: list[list[float]] | None
    """Weight of each prompt, [C][K]; None without a data set of images."""
    uncertainties: list[list[float]]
    """Uncertainty of each prompt, [C][K]."""


class Explorer:
    """Answers the questions of the page with a model and the items of a data set.

    Raises:
        UserError: the model has no variances, or epistemic ones; or no image of the items can be decoded.
    """

    def __init__(self, model: Model, items: Sequence[Item]) -> None:
        if not model.has_variances:
            raise UserError("the model has no variances of both images and texts: there is no uncertainty to explore")
        if model.epistemic:
            raise UserError(f"the page compares by sampled distance: {NO_CSD}")
        self.model = model
        # Every tokenizer pads an empty caption at its end.
        self._padding = int(model.tokenize("")[0, -1])
        self._cache: dict[str, Gaussian] = {}
        self._lock = Lock()
        self.items, self._images = self._embed_items(_with_unique_keys(items))
        self.by_key = {item.key: item for item in self.items}
        self.all_captions = list(dict.fromkeys(caption for item in self.items for caption in item.captions))

    # ---- one method per panel ----

    def compare(self, image_data: bytes, captions: Sequence[str]) -> Compared:
        """Compare an image with captions.

        Raises:
            UserError: there are no captions, or too many.
            prolip.data.DataError: the bytes cannot be decoded as an image.
        """
        image = self._embed_image(image_data)
        views = sorted(self._views(captions, image), key=lambda view: view.distance)
        uncertainty = float(image.total_var)
        return Compared(views=views, uncertainty=uncertainty, more_certain=self._more_certain(uncertainty))

    def pair(self, first: str, second: str) -> Pair:
        """Compare two captions.

        Raises:
            UserError: one of them is empty.
        """
        captions = [_clean_lines([first]), _clean_lines([second])]
        a, b = map(self._texts, captions)
        lengths = [int((self.model.tokenize(caption) != self._padding).sum()) for caption in captions]
        return Pair(
            first=Caption(captions[0][0], lengths[0], float(a.total_var)),
            second=Caption(captions[1][0], lengths[1], float(b.total_var)),
            similarity=float(a.mean @ b.mean.T),
            distance=float(csd(a, b)),
            first_in_second=float(inclusion_score(a, b).mean()),
        )

    def walk(self, image_data: bytes, captions: Sequence[str] | None, root: str) -> list[Stop]:
        """Return the captions on the way from an image's nearest caption to the root, and the root at the end.

        This is the traversal of HierarCaps (docs/specification.md, section 9). Without `captions`, the captions of the
        data set are used.

        Raises:
            UserError: there are no captions, or the root is empty.
            prolip.data.DataError: the bytes cannot be decoded as an image.
        """
        config, (root,) = TraversalConfig(), _clean_lines([root], "the root is empty: write the most general caption")
        image = self._embed_image(image_data)
        if captions is None and self.all_captions:
            candidates, texts = self.all_captions, self._dataset_captions
        else:
            candidates = _clean_lines(captions or (), "write the captions to walk through")
            texts = self._texts(candidates)
        start = texts.mean[(image.mean @ texts.mean.T).argmax(dim=1)]
        steps = visited_items(start @ texts.mean.T, self._texts([root]).mean @ texts.mean.T, config)[0].tolist()
        # The walk stops before the root, so add it.
        met = [*(candidates[place] for place in steps), root]
        names = list(dict.fromkeys(met))
        return [
            Stop(
                view=view,
                first_step=met.index(name),
                last_step=len(met) - 1 - met[::-1].index(name),
                num_steps=config.num_steps,
            )
            for name, view in zip(names, self._views(names, image), strict=True)
        ]

    def ranked_images(self) -> list[tuple[Item, float]]:
        """Return the data set's items with the uncertainty of their images, the most certain first."""
        if self._images is None:
            return []
        order = self._images.total_var.sort(stable=True)
        return [
            (self.items[place], value)
            for value, place in zip(order.values.tolist(), order.indices.tolist(), strict=True)
        ]

    def ranked_captions(self) -> list[tuple[str, float]]:
        """Return the data set's distinct captions with their uncertainty, the most certain first."""
        if not self.all_captions:
            return []
        values = self._dataset_captions.total_var.tolist()
        return sorted(zip(self.all_captions, values, strict=True), key=lambda pair: pair[1])

    def caption_range(self) -> Range:
        """Return the range of uncertainties of the data set's captions, or of some everyday captions."""
        if not self.all_captions:
            return _range(self._texts(EVERYDAY), f"of {len(EVERYDAY)} everyday captions")
        return _range(self._dataset_captions, f"of the data set's {len(self.all_captions):,} captions")

    def image_range(self) -> Range | None:
        """Return the range of uncertainties of the data set's images; None without a data set."""
        return None if self._images is None else _range(self._images, f"of the {len(self.items):,} images")

    def classify(self, image_data: bytes | None, names: Sequence[str], templates: Sequence[str]) -> Classified:
        """Classify an image, with even prompts and with prompts weighted by the nearest images of the data set.

        Raises:
            UserError: there are fewer than two names, no templates, or too many prompts; or a template lacks `{}`.
            prolip.data.DataError: the bytes cannot be decoded as an image.
        """
        names, templates = _clean_lines(names, "write class names"), _clean_lines(templates, "write templates")
        if len(names) < 2:
            raise UserError("a classifier needs at least two class names")
        if len(names) * len(templates) > MAX_PROMPTS:
            raise UserError(f"{len(names) * len(templates)} prompts are too many: {MAX_PROMPTS} at most")
        prompts = encode_prompts(templates, names, self._texts)
        reweighted: PromptWeights | None = None
        if self._images is not None and len(templates) > 1:
            count = min(BprwConfig.num_neighbors, len(self.items))
            reweighted = reweight_prompts(prompts, self._images, BprwConfig(num_neighbors=count))
        even = weighted = None
        if image_data is not None:
            mean = self._embed_image(image_data).mean
            even = self._shares(mean, aggregate_prompts(prompts).weight)
            weighted = None if reweighted is None else self._shares(mean, F.normalize(reweighted.classifier, dim=-1))
        return Classified(
            names=names,
            templates=templates,
            even=even,
            weighted=weighted,
            weights=None if reweighted is None else reweighted.weights.tolist(),
            uncertainties=prompts.total_var.tolist(),
        )

    def rely(self, image_data: bytes, labels: Sequence[str], decide: Decide) -> Reliance:
        """Say which labels of an image can be relied on, by the model's calibration.

        Raises:
            UserError: there are no labels, or too many.
            prolip.data.DataError: the bytes cannot be decoded as an image.
        """
        labels, image = _clean_lines(labels, "write labels"), self._embed_image(image_data)
        uncertainty = float(image.total_var)
        left_open = Doubt(uncertainty, self._more_certain(uncertainty), "the data set's images")
        return rely_on(self.model, image, labels, self._texts, decide, left_open)

    # ---- shared by the panels ----

    def _more_certain(self, uncertainty: float) -> float | None:
        """Share of the data set's images that are more certain; None without a data set."""
        if self._images is None:
            return None
        # If an image of the data set is embedded again alone, its value may differ by rounding.
        return float((self._images.total_var < uncertainty * (1 - 1e-6)).double().mean())

    def _shares(self, image: Tensor, classifier: Tensor) -> list[float]:
        """Return the softmax over classes with the model's own scale."""
        logits = zero_shot_logits(image, classifier, logit_scale=self.model.logit_scale)
        shares: list[float] = logits[0].softmax(dim=0).tolist()
        return shares

    @cached_property
    def _dataset_captions(self) -> Gaussian:
        """Gaussians of the data set's captions, [N, D]."""
        return self.model.encode_texts(self.all_captions, progress=False)

    def _embed_items(self, items: Sequence[Item]) -> tuple[list[Item], Gaussian | None]:
        """Embed the images of the items; returns the items that can be decoded and their Gaussians (None if no items).

        Raises:
            UserError: there are items, but none of their images can be decoded.
        """
        readable: list[Item] = []
        parts: list[Gaussian] = []
        for start in range(0, len(items), _EMBED_BATCH):
            pixels = []
            for item in items[start : start + _EMBED_BATCH]:
                try:
                    pixels.append(self.model.preprocess(item.image))
                except DataError as error:
                    log.warning("%s is skipped: %s", item.key, error)
                else:
                    readable.append(item)
            if pixels:
                parts.append(self.model.encode_images(torch.stack(pixels), progress=False))
        if items and not readable:
            raise UserError(f"none of the {len(items)} images of the data set can be decoded")
        return readable, concatenate(parts) if parts else None

    def _embed_image(self, image_data: bytes) -> Gaussian:
        return self.model.encode_images(image_data, progress=False)

    def _texts(self, captions: Sequence[str]) -> Gaussian:
        """Embed captions, [N, D], using the cache."""
        with self._lock:  # panels call this from several threads
            new = [caption for caption in dict.fromkeys(captions) if caption not in self._cache]
            if new:
                embedded = self.model.encode_texts(new, progress=False)
                if len(self._cache) + len(new) > _CACHED_CAPTIONS:
                    self._cache = {caption: self._cache[caption] for caption in captions if caption in self._cache}
                for place, caption in enumerate(new):
                    self._cache[caption] = embedded.rows(slice(place, place + 1))
            return concatenate([self._cache[caption] for caption in captions])

    def _views(self, captions: Sequence[str], image: Gaussian) -> list[CaptionView]:
        captions = _clean_lines(captions)
        texts = self._texts(captions)
        similarity, distance = (image.mean @ texts.mean.T)[0], csd(image, texts)[0]
        inside = inclusion_score(image, texts).mean(dim=1)
        match: list[float | None] = [None] * len(captions)
        if self.model.logit_bias is not None:
            match = csd_logits(image, texts, self.model.logit_scale, self.model.logit_bias).sigmoid()[0].tolist()
        columns = (texts.total_var.tolist(), similarity.tolist(), distance.tolist(), match, inside.tolist())
        return list(map(CaptionView, captions, *columns))


def _clean_lines(lines: Sequence[str], if_empty: str = "write at least one caption") -> list[str]:
    """Strip the lines and drop empty and repeated ones.

    Raises:
        UserError: no line is left (the message is `if_empty`), or there are too many.
    """
    cleaned = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not cleaned:
        raise UserError(if_empty)
    if len(cleaned) > MAX_PROMPTS:
        raise UserError(f"{len(cleaned)} lines are too many: {MAX_PROMPTS} at most")
    return cleaned


def _with_unique_keys(items: Sequence[Item]) -> list[Item]:
    """Append a number to repeated keys, since shards of several folders may have the same name."""
    seen = Counter[str]()
    unique = []
    for item in items:
        seen[item.key] += 1
        unique.append(item if seen[item.key] == 1 else replace(item, key=f"{item.key} ({seen[item.key]})"))
    return unique


def _range(gaussian: Gaussian, of: str) -> Range:
    return Range(float(gaussian.total_var.min()), float(gaussian.total_var.max()), of)
