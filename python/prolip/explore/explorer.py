"""What the page asks of a model: numbers about pictures and captions, without a word of how they are shown.

N items, C classes, K prompts a class, D dimensions.
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

from prolip.data import OPENAI_MEAN, OPENAI_STD, DataError, preprocess_image
from prolip.data.tokenizer import Tokenizer
from prolip.embeddings.embed import embed_pixels, embed_texts
from prolip.eval.bprw import PromptWeights, reweight_prompts
from prolip.eval.config import BprwConfig, TraversalConfig
from prolip.eval.hierarchy import visited_items
from prolip.eval.prompts import fill_templates
from prolip.eval.zero_shot import aggregate_prompts, zero_shot_logits
from prolip.explore.items import Item
from prolip.gaussian import Gaussian, concatenate, csd, csd_logits, inclusion_score
from prolip.models import ProLIP
from prolip.pretrained.eval_model import square_image_size

log = logging.getLogger(__name__)

MAX_PROMPTS = 4096
"""Captions, or prompts of all classes, that one question may ask about."""
EVERYDAY = (
    "a picture",
    "an animal",
    "food and drink",
    "a person",
    "a red car in front of a house",
    "two small dogs that play in the snow",
)
"""Captions between which uncertainties are shown where there is no data set."""
_REMEMBERED = 4096
"""Captions whose Gaussians are kept."""
_AT_ONCE = 256
"""Pictures of the data set that are in memory as the model takes them."""


class Range(NamedTuple):
    """From where to where uncertainties go."""

    low: float
    high: float
    of: str
    """Whose, in words."""


@dataclass(frozen=True, kw_only=True)
class CaptionView:
    """A caption, by itself and beside a picture."""

    caption: str
    num_tokens: int
    """Without padding."""
    uncertainty: float
    """Sum of its variances."""
    similarity: float | None
    """Dot product of the means, in [-1, 1]; None without a picture."""
    distance: float | None
    """Sampled distance."""
    match: float | None
    """Probability that the two belong together, as in training; None for a model without a bias as well."""
    picture_in_caption: float | None
    """Mean H over dimensions: positive where the picture lies in the caption. The other way round it is minus that."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A picture beside captions."""

    views: list[CaptionView]
    """The nearest first."""
    uncertainty: float
    """The picture's: sum of its variances."""
    more_certain: float | None
    """Share of the data set's other pictures that are more certain; None without any."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two captions beside each other."""

    first: CaptionView
    second: CaptionView
    similarity: float
    distance: float
    first_in_second: float
    """Mean H over dimensions."""


@dataclass(frozen=True, kw_only=True)
class Stop:
    """A caption that was met on the way from a picture to the root."""

    view: CaptionView
    first_step: int
    last_step: int
    num_steps: int


@dataclass(frozen=True, kw_only=True)
class Classified:
    """A zero-shot classifier, what it says about a picture, and how its prompts were weighted."""

    names: list[str]
    templates: list[str]
    even: list[float] | None
    """Softmax over classes with even prompts, by means; None without a picture."""
    weighted: list[float] | None
    """The same with the prompts' weights."""
    weights: list[list[float]] | None
    """[C][K]; None where no pictures could vote."""
    uncertainties: list[list[float]]
    """[C][K], of every prompt."""


class Explorer:
    """A model, its tokenizer, and the items of a data set.

    Raises:
        ValueError: the model takes pictures that are not square, or has no variances.
    """

    def __init__(self, model: ProLIP, tokenizer: Tokenizer, items: Sequence[Item]) -> None:
        if not (model.config.vision.embed_unc and model.config.text.embed_unc):
            raise ValueError("the model has no [UNC] token in both towers: there is no uncertainty to explore")
        self.model, self.tokenizer = model, tokenizer
        self._size, self._device = square_image_size(model), next(model.parameters()).device
        self._remembered: dict[str, Gaussian] = {}
        self._asking = Lock()
        self.items, self._pictures = self._embed_items(_told_apart(items))
        self.by_key = {item.key: item for item in self.items}
        self.all_captions = list(dict.fromkeys(caption for item in self.items for caption in item.captions))

    # ---- the panels ----

    def compare(self, picture: bytes, captions: Sequence[str]) -> Compared:
        """Captions beside a picture.

        Raises:
            ValueError: there are no captions, or too many.
            prolip.data.DataError: the bytes are no picture that can be decoded.
        """
        image = self._embed_picture(picture)
        views = sorted(self._views(captions, image), key=lambda view: view.distance or 0.0)
        unsure, share = float(image.total_var), None
        if self._pictures is not None:
            share = float((self._pictures.total_var < unsure).double().mean())
        return Compared(views=views, uncertainty=unsure, more_certain=share)

    def pair(self, first: str, second: str) -> Pair:
        """Two captions beside each other.

        Raises:
            ValueError: one of them is empty.
        """
        (first_view,), (second_view,) = self._views([first], None), self._views([second], None)
        one, other = self._texts([first_view.caption]), self._texts([second_view.caption])
        return Pair(
            first=first_view,
            second=second_view,
            similarity=float(one.mean @ other.mean.T),
            distance=float(csd(one, other)),
            first_in_second=float(inclusion_score(one, other).mean()),
        )

    def walk(self, picture: bytes, captions: Sequence[str] | None, root: str) -> list[Stop]:
        """Captions met between a picture's nearest one and the root, in order (SPEC §9), and the root at the end.

        Without captions of one's own the walk goes through the data set's.

        Raises:
            ValueError: there are no captions, or the root is empty.
            prolip.data.DataError: the bytes are no picture that can be decoded.
        """
        config, (root,) = TraversalConfig(), _asked([root], "the root is empty: write the most general caption")
        image = self._embed_picture(picture)
        if captions is None and self.all_captions:
            candidates, texts = self.all_captions, self._own_captions
        else:
            candidates = _asked(captions or (), "write the captions that may be met")
            texts = self._texts(candidates)
        start = texts.mean[(image.mean @ texts.mean.T).argmax(dim=1)]
        steps = visited_items(start @ texts.mean.T, self._texts([root]).mean @ texts.mean.T, config)[0].tolist()
        # The root itself is never asked for on the way: it is where the way ends.
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

    def ranked_pictures(self) -> list[tuple[Item, float]]:
        """The data set's items by their pictures' uncertainty, the most certain first."""
        if self._pictures is None:
            return []
        order = self._pictures.total_var.sort(stable=True)
        return [
            (self.items[place], value)
            for value, place in zip(order.values.tolist(), order.indices.tolist(), strict=True)
        ]

    def ranked_captions(self) -> list[tuple[str, float]]:
        """The data set's distinct captions by their uncertainty, the most certain first."""
        if not self.all_captions:
            return []
        values = self._own_captions.total_var.tolist()
        return sorted(zip(self.all_captions, values, strict=True), key=lambda pair: pair[1])

    def caption_range(self) -> Range:
        """Between which uncertainties those of captions are shown: the data set's, or those of everyday captions."""
        if not self.all_captions:
            return _range(self._texts(EVERYDAY), f"of {len(EVERYDAY)} everyday captions")
        return _range(self._own_captions, f"of the data set's {len(self.all_captions):,} captions")

    def picture_range(self) -> Range | None:
        """Between which uncertainties the data set's pictures lie; None without any."""
        return None if self._pictures is None else _range(self._pictures, f"of the {len(self.items):,} pictures")

    def classify(self, picture: bytes | None, names: Sequence[str], templates: Sequence[str]) -> Classified:
        """A classifier from names and templates; its prompts are weighted by the data set's pictures that are nearest.

        Raises:
            ValueError: there are fewer than two names, no templates, or too many prompts; a template lacks `{}`.
            prolip.data.DataError: the bytes are no picture that can be decoded.
        """
        names, templates = _asked(names, "write class names"), _asked(templates, "write templates")
        if len(names) < 2:
            raise ValueError("a classifier needs at least two class names")
        if len(names) * len(templates) > MAX_PROMPTS:
            raise ValueError(f"{len(names) * len(templates)} prompts are too many: {MAX_PROMPTS} at most")
        flat = self._texts([prompt for ensemble in fill_templates(templates, names) for prompt in ensemble])
        shape = (len(names), len(templates), -1)
        prompts = Gaussian(flat.mean.reshape(shape), flat.log_var.reshape(shape))
        found: PromptWeights | None = None
        if self._pictures is not None and len(templates) > 1:
            count = min(BprwConfig.num_neighbors, len(self.items))
            found = reweight_prompts(prompts, self._pictures, BprwConfig(num_neighbors=count))
        even = weighted = None
        if picture is not None:
            mean = self._embed_picture(picture).mean
            even = _shares(mean, aggregate_prompts(prompts).weight)
            weighted = None if found is None else _shares(mean, F.normalize(found.classifier, dim=-1))
        return Classified(
            names=names,
            templates=templates,
            even=even,
            weighted=weighted,
            weights=None if found is None else found.weights.tolist(),
            uncertainties=prompts.total_var.tolist(),
        )

    # ---- what they share ----

    @cached_property
    def _own_captions(self) -> Gaussian:
        """Of the data set, [N, D]."""
        return embed_texts(self.model, self.tokenizer, self.all_captions, self._device)

    def _embed_items(self, items: Sequence[Item]) -> tuple[list[Item], Gaussian | None]:
        """The items whose pictures can be decoded, with the pictures' Gaussians; None where there are no items.

        Raises:
            ValueError: there are items, but not one picture of them can be decoded.
        """
        readable: list[Item] = []
        parts: list[Gaussian] = []
        for start in range(0, len(items), _AT_ONCE):
            pixels = []
            for item in items[start : start + _AT_ONCE]:
                try:
                    pixels.append(self._pixels(item.picture))
                except DataError as error:
                    log.warning("%s is left out: %s", item.key, error)
                else:
                    readable.append(item)
            if pixels:
                parts.append(embed_pixels(self.model, torch.cat(pixels), self._device))
        if items and not readable:
            raise ValueError(f"not one of {len(items)} pictures of the data set can be decoded")
        return readable, concatenate(parts) if parts else None

    def _pixels(self, picture: bytes) -> Tensor:
        """A picture as the model takes it, f32 [1, 3, size, size]."""
        pixels = torch.from_numpy(preprocess_image(picture, self._size)).permute(2, 0, 1)[None].float() / 255
        mean, std = (torch.tensor(values)[:, None, None] for values in (OPENAI_MEAN, OPENAI_STD))
        return (pixels - mean) / std

    def _embed_picture(self, picture: bytes) -> Gaussian:
        return embed_pixels(self.model, self._pixels(picture), self._device)

    def _texts(self, captions: Sequence[str]) -> Gaussian:
        """[N, D]; captions that were asked for before are not embedded again."""
        with self._asking:  # panels ask at the same time
            new = [caption for caption in dict.fromkeys(captions) if caption not in self._remembered]
            if new:
                embedded = embed_texts(self.model, self.tokenizer, new, self._device)
                if len(self._remembered) + len(new) > _REMEMBERED:
                    known = {caption: self._remembered[caption] for caption in captions if caption in self._remembered}
                    self._remembered = known
                for place, caption in enumerate(new):
                    self._remembered[caption] = embedded.rows(slice(place, place + 1))
            return concatenate([self._remembered[caption] for caption in captions])

    def _views(self, captions: Sequence[str], image: Gaussian | None) -> list[CaptionView]:
        captions = _asked(captions)
        texts = self._texts(captions)
        lengths = (self.tokenizer.encode(captions) != self.tokenizer.pad_id).sum(axis=1).tolist()
        similarity = distance = match = inside = None
        if image is not None:
            similarity = (image.mean @ texts.mean.T)[0].tolist()
            distance = csd(image, texts)[0].tolist()
            inside = inclusion_score(image, texts).mean(dim=1).tolist()
            if self.model.logit_bias is not None:
                with torch.inference_mode():
                    scale, bias = self.model.logit_scale.exp().cpu(), self.model.logit_bias.cpu()
                    match = csd_logits(image, texts, scale, bias).sigmoid()[0].tolist()
        return [
            CaptionView(
                caption=caption,
                num_tokens=lengths[place],
                uncertainty=float(texts.total_var[place]),
                similarity=None if similarity is None else similarity[place],
                distance=None if distance is None else distance[place],
                match=None if match is None else match[place],
                picture_in_caption=None if inside is None else inside[place],
            )
            for place, caption in enumerate(captions)
        ]


def _asked(lines: Sequence[str], otherwise: str = "write at least one caption") -> list[str]:
    """The lines that say something, each once.

    Raises:
        ValueError: there are none (the message is `otherwise`), or too many.
    """
    found = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not found:
        raise ValueError(otherwise)
    if len(found) > MAX_PROMPTS:
        raise ValueError(f"{len(found)} lines are too many: {MAX_PROMPTS} at most")
    return found


def _told_apart(items: Sequence[Item]) -> list[Item]:
    """The items, with a number behind keys that others have had: shards of several folders may have one name."""
    seen = Counter[str]()
    found = []
    for item in items:
        seen[item.key] += 1
        found.append(item if seen[item.key] == 1 else replace(item, key=f"{item.key} ({seen[item.key]})"))
    return found


def _range(gaussian: Gaussian, of: str) -> Range:
    return Range(float(gaussian.total_var.min()), float(gaussian.total_var.max()), of)


def _shares(image: Tensor, classifier: Tensor) -> list[float]:
    shares: list[float] = zero_shot_logits(image, classifier)[0].softmax(dim=0).tolist()
    return shares
