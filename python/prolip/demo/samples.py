"""A model's embeddings of the base emoji and of their captions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from prolip.build.emoji.art import DESIGNS
from prolip.build.emoji.samples import TRAINED, EmojiSample
from prolip.demo.config import EvalSplit
from prolip.gaussian import Gaussian
from prolip.inference.model import Model
from prolip.metrics.hierarchy import string_ids
from prolip.metrics.retrieval import same_group


def set_names(split: EvalSplit) -> list[str]:
    """The sets of a split: one per design of emoji without training; last, for `test`, the trained ones."""
    sets = [f"{split}-{design}" for design in DESIGNS]
    return [*sets, TRAINED] if split == "test" else sets


def embed_images(model: Model, samples: Sequence[EmojiSample]) -> Gaussian:
    """[N, D]"""
    return model.encode_images([sample.png for sample in samples], progress=False)


class Captions(NamedTuple):
    """The Gaussians of distinct captions."""

    places: dict[str, int]
    gaussian: Gaussian
    num_tokens: Tensor
    """f64 [M], tokens without padding."""

    def at(self, level: str, samples: Sequence[EmojiSample]) -> tuple[Gaussian, Tensor]:
        """The Gaussians of all captions of a level, [N, T, D], and their tokens, f64 [N, T]; T templates."""
        texts = [sample.captions[level] for sample in samples]
        places = torch.tensor([[self.places[text] for text in some] for some in texts])
        return self.gaussian.rows(places.flatten()).unflatten(*places.shape), self.num_tokens[places]

    def of(self, texts: Iterable[str]) -> Gaussian:
        """Of these texts, [N, D]."""
        return self.gaussian.rows(torch.tensor([self.places[text] for text in texts]))


def embed_captions(model: Model, samples: Iterable[EmojiSample]) -> Captions:
    """Embed each distinct caption of the samples once."""
    texts = list(dict.fromkeys(text for sample in samples for some in sample.captions.values() for text in some))
    pad = model.tokenize("")[0, -1]
    num_tokens = (model.tokenize(texts) != pad).sum(dim=1).double()
    gaussian = model.encode_texts(texts, progress=False)
    return Captions({text: place for place, text in enumerate(texts)}, gaussian, num_tokens)


class Classes(NamedTuple):
    """The classes of a level, with their prompts: the distinct captions of all templates."""

    level: str
    prompts: dict[str, list[str]]

    @property
    def names(self) -> list[str]:
        """The classes."""
        return list(self.prompts)

    @property
    def templates(self) -> list[str]:
        """The prompts with `{}` for the class."""
        name, prompts = next(iter(self.prompts.items()))
        return [prompt.replace(name, "{}") for prompt in prompts]

    def labels(self, samples: Iterable[EmojiSample]) -> Tensor:
        """The class of each sample, i64 [N]."""
        places = {name: place for place, name in enumerate(self.prompts)}
        return torch.tensor([places[sample.text(self.level)] for sample in samples])

    def embedded(self, captions: Captions) -> Gaussian:
        """The Gaussians of the prompts, [C, K, D]."""
        flat = captions.of(text for prompts in self.prompts.values() for text in prompts)
        return flat.unflatten(len(self.prompts), -1)


def find_classes(level: str, samples: Iterable[EmojiSample]) -> Classes:
    """The classes of the samples at a level, in order of first appearance."""
    return Classes(level, {sample.text(level): list(dict.fromkeys(sample.captions[level])) for sample in samples})


def correct_pairs(samples: Sequence[EmojiSample]) -> Tensor:
    """The correct names of each image, bool [N, N]: its own, equal names, and the names of equal images."""
    by_image, by_name = string_ids([[sample.image_id, sample.text("name")] for sample in samples]).T
    return same_group(by_image, by_image) | same_group(by_name, by_name)
