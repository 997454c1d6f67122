"""The samples of the emoji shards, and their captions, of which each distinct one is embedded once."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from prolip.demo.data.captions import LEVELS
from prolip.errors import UserError
from prolip.gaussian import Gaussian


@dataclass(frozen=True, kw_only=True)
class EmojiSample:
    """The record of one image, from its JSON."""

    key: str
    codepoint: str
    emoji: str
    name: str
    group: str
    subgroup: str
    skin_tone: bool
    image_id: str
    """Equal for equal images."""
    captions: dict[str, list[str]]
    """Captions by level, one per template, with templates in the same order at every level."""


class ImageSet(NamedTuple):
    """The images and samples of one set of shards."""

    name: str
    images: Tensor
    """f32 [N, 3, H, W], normalised."""
    samples: list[EmojiSample]


class LabelledImages(NamedTuple):
    """One model's Gaussians of a set of images."""

    name: str
    images: Gaussian
    """[N, D]"""
    samples: Sequence[EmojiSample]


class CaptionBook:
    """Distinct captions with their indices, to embed each once and look it up often."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    @property
    def texts(self) -> list[str]:
        """The captions, in the order of their indices."""
        return list(self._places)

    def add(self, captions: Iterable[str]) -> None:
        """Add captions that are new."""
        for caption in captions:
            self._places.setdefault(caption, len(self._places))

    def places(self, captions: Iterable[str]) -> Tensor:
        """Return the indices of captions, i64 [N]."""
        return torch.tensor([self._places[caption] for caption in captions], dtype=torch.int64)


class EmbeddedCaptions(NamedTuple):
    """The Gaussians of a caption book."""

    book: CaptionBook
    gaussian: Gaussian
    num_tokens: Tensor
    """f64 [N], tokens per caption without padding."""

    def of(self, captions: Iterable[str]) -> Gaussian:
        """Look up the Gaussians of captions, [N, D]."""
        return self.gaussian.rows(self.book.places(captions))

    def total_var(self, captions: Iterable[str]) -> Tensor:
        """Return the uncertainty of captions, f64 [N]."""
        return self.of(captions).total_var.double()

    def tokens(self, captions: Iterable[str]) -> Tensor:
        """Return the length of captions in tokens, f64 [N]."""
        return self.num_tokens[self.book.places(captions)]


def parse_sample(key: str, text: str | bytes | None) -> EmojiSample:
    """Parse a sample's JSON; None stands for a sample without JSON.

    Raises:
        UserError: a field is missing; the message names the key and the field.
    """
    record = {} if text is None else json.loads(text)
    try:
        captions = {level: [str(caption) for caption in record["captions"][level]] for level in LEVELS}
        sample = EmojiSample(
            key=key,
            codepoint=str(record["codepoint"]),
            emoji=str(record["emoji"]),
            name=str(record["name"]),
            group=str(record["group"]),
            subgroup=str(record["subgroup"]),
            skin_tone=bool(record["skin_tone"]),
            image_id=str(record["picture"]),
            captions=captions,
        )
    except KeyError as error:
        raise UserError(f"sample {key}: its json has no field {error}") from error
    if len({len(level) for level in captions.values()}) != 1 or not captions["name"]:
        raise UserError(f"sample {key}: its levels have different numbers of captions")
    return sample


def is_chained(sample: EmojiSample, template: int) -> bool:
    """Whether a template also lists the levels above the name ("blowfish, marine animal, animals and nature")."""
    return sample.captions["name"][template].count(",") > sample.name.count(",") + 1


def codes(values: Sequence[str]) -> Tensor:
    """Number the distinct strings; returns the number of each string, i64 [N]."""
    places = {value: place for place, value in enumerate(dict.fromkeys(values))}
    return torch.tensor([places[value] for value in values], dtype=torch.int64)


def evenly_spaced(length: int, count: int, offset: float = 0.5) -> list[int]:
    """Return up to `count` indices spread evenly over `length`; `offset` in [0, 1) shifts them within their step."""
    count = min(count, length)
    return [int((step + offset) * length / count) for step in range(count)]
