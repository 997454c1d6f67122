"""The emoji shards' samples as records, and each distinct caption embedded once."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from prolip.gaussian import Gaussian

LEVELS = ("picture", "group", "subgroup", "name")
"""Levels of caption, the most general first."""


@dataclass(frozen=True, kw_only=True)
class EmojiSample:
    """One picture's record, from its json."""

    key: str
    codepoint: str
    emoji: str
    name: str
    group: str
    subgroup: str
    skin_tone: bool
    picture: str
    """Shared by equal pictures."""
    captions: dict[str, list[str]]
    """By level: one caption a template, templates in the same order at every level."""


class PictureSet(NamedTuple):
    """The pictures of one shard pattern and what is known of them."""

    name: str
    images: Tensor
    """f32 [N, 3, H, W], normalised."""
    samples: list[EmojiSample]


class CaptionBook:
    """Distinct captions, each with a place: what is embedded once and looked up often."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._places: dict[str, int] = {}

    def add(self, captions: Iterable[str]) -> None:
        """Takes in captions, each once."""
        for caption in captions:
            if caption not in self._places:
                self._places[caption] = len(self.texts)
                self.texts.append(caption)

    def places(self, captions: Iterable[str]) -> Tensor:
        """Places of captions that were added, i64 [N]."""
        return torch.tensor([self._places[caption] for caption in captions], dtype=torch.int64)


class EmbeddedCaptions(NamedTuple):
    """A caption book's Gaussians."""

    book: CaptionBook
    gaussian: Gaussian
    num_tokens: Tensor
    """f64 [N], tokens a caption has without padding."""

    def of(self, captions: Iterable[str]) -> Gaussian:
        """Gaussians of captions, [N, D]."""
        return self.gaussian.rows(self.book.places(captions))

    def total_var(self, captions: Iterable[str]) -> Tensor:
        """Uncertainty of captions, f64 [N]."""
        return self.of(captions).total_var.double()

    def tokens(self, captions: Iterable[str]) -> Tensor:
        """Length of captions in tokens, f64 [N]."""
        return self.num_tokens[self.book.places(captions)]


def parse_sample(key: str, text: str | bytes | None) -> EmojiSample:
    """The record in a sample's json; None is that of a sample without one.

    Raises:
        ValueError: a field is missing; the message names the key and the field.
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
            picture=str(record["picture"]),
            captions=captions,
        )
    except KeyError as error:
        raise ValueError(f"sample {key}: its json has no field {error}") from error
    if len({len(level) for level in captions.values()}) != 1 or not captions["name"]:
        raise ValueError(f"sample {key}: its levels have different numbers of captions")
    return sample


def is_chained(sample: EmojiSample, template: int) -> bool:
    """Whether a template lists the levels above the name as well ("blowfish, marine animal, animals and nature")."""
    return sample.captions["name"][template].count(",") > sample.name.count(",") + 1


def codes(values: Sequence[str]) -> Tensor:
    """An integer for each string, equal ones sharing theirs, i64 [N]."""
    places = {value: place for place, value in enumerate(dict.fromkeys(values))}
    return torch.tensor([places[value] for value in values], dtype=torch.int64)


def evenly_spaced(length: int, count: int, offset: float = 0.5) -> list[int]:
    """At most `count` distinct places spread evenly over `length`; `offset` in [0, 1) shifts them within their step."""
    count = min(count, length)
    return [int((step + offset) * length / count) for step in range(count)]
