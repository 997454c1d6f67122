"""`prolip eval emoji`: the demo's own figures, on classes with prompts of their own and captions of several levels.

The rest of the demo's page comes from general suites. N images, C classes, T templates, D dimensions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from prolip.build.emoji.art import DESIGNS
from prolip.build.emoji.attribution import ATTRIBUTIONS
from prolip.build.emoji.captions import LEVELS
from prolip.build.emoji.samples import TITLES, TRAINED, EmojiSample, read_set
from prolip.calibration.fitting import label_shares, log_prior
from prolip.demo.config import EmojiOptions, EvalSplit
from prolip.errors import check
from prolip.evaluation.classification import accuracy_rows, answer
from prolip.evaluation.results import Chart, Row, RowId, SuiteResult, TaskCache, row_of_items
from prolip.evaluation.uncertainty import blurred, hide_patches, view_of
from prolip.gaussian import Gaussian, inclusion_score
from prolip.inference.classify import weigh
from prolip.inference.model import Model, untrained
from prolip.metrics.hierarchy import string_ids
from prolip.metrics.retrieval import RECALL_AT, chance_recall, first_ranks, same_group
from prolip.metrics.uncertainty import more_uncertain
from prolip.metrics.zero_shot import aggregate_prompts

RIGHT, ORDER, INCLUSION, VIEWS = TEXTS = {
    "How often is it right?": "“Frequencies known”: the model also knows how frequent each class is among the trained "
    "emoji. Names are ranked by sampled distance; equal images count as one.",
    "Are general captions wider than specific ones?": "Training asks for this order, but never about unseen names. "
    "Chance is 50 %. “Not longer” counts pairs in which the length of the caption cannot be the reason.",
    "Does the specific lie inside the general?": "Share of pairs with an inclusion score H above zero: the second "
    "Gaussian is the wider one. It does not say that the two belong together.",
    "What makes an image less certain?": "Training asks for the effect of hidden patches, not of blur.",
}
"""What each section asks, and how to read it."""
_OF_ANSWERS = {"accuracy", "accuracy_with_variances", "accuracy_with_frequencies"}
_HEADLINES = {
    "Group of a held-out emoji, zero-shot": ("first", RowId("accuracy", of="group")),
    "Group of a held-out emoji, with the groups' frequencies": (
        "first",
        RowId("accuracy_with_frequencies", of="group"),
    ),
    "Subgroup of a held-out emoji, zero-shot": ("first", RowId("accuracy", of="subgroup")),
    "Subgroup of a held-out emoji, with the subgroups' frequencies": (
        "first",
        RowId("accuracy_with_frequencies", of="subgroup"),
    ),
    "Right caption in the first 10, the held-out design": ("last", RowId("recall_at", way="image_to_text", at=10)),
    "Group caption more uncertain than the name, unseen names": ("unseen names", RowId("group_over_name")),
    "Group caption more uncertain than the name, trained names": ("trained names", RowId("group_over_name")),
}
"""To print: of the first or the last set, or of names."""
_KINDS = {"test": "held-out emoji", "val": "validation emoji", "design": "trained emoji"}


def set_names(split: EvalSplit) -> list[str]:
    """Of a split: one per design of emoji without training; last, for `test`, the trained ones."""
    sets = [f"{split}-{design}" for design in DESIGNS]
    return [*sets, TRAINED] if split == "test" else sets


class EmojiSet(NamedTuple):
    """Images as a model sees them."""

    name: str
    samples: list[EmojiSample]
    images: Gaussian
    """[N, D]"""

    @property
    def title(self) -> str:
        """What is shown: "held-out emoji, OpenMoji"."""
        kind, _, design = self.name.partition("-")
        return f"{_KINDS[kind]}, {TITLES[design]}"


class Captions(NamedTuple):
    """Distinct ones, embedded."""

    places: dict[str, int]
    gaussian: Gaussian
    num_tokens: Tensor
    """f64 [M], tokens without padding."""

    def at(self, level: str, samples: Sequence[EmojiSample]) -> tuple[Gaussian, Tensor]:
        """All captions of a level, [N, T, D], and their tokens, f64 [N, T]."""
        texts = [sample.captions[level] for sample in samples]
        places = torch.tensor([[self.places[text] for text in some] for some in texts])
        return self.gaussian.rows(places.flatten()).unflatten(*places.shape), self.num_tokens[places]

    def of(self, texts: Iterable[str]) -> Gaussian:
        """Of these texts, [N, D]."""
        return self.gaussian.rows(torch.tensor([self.places[text] for text in texts]))


def embed_captions(model: Model, samples: Iterable[EmojiSample]) -> Captions:
    """Each distinct one of the samples, once."""
    texts = list(dict.fromkeys(text for sample in samples for some in sample.captions.values() for text in some))
    pad = model.tokenize("")[0, -1]
    num_tokens = (model.tokenize(texts) != pad).sum(dim=1).double()
    gaussian = model.encode_texts(texts, progress=False)
    return Captions({text: place for place, text in enumerate(texts)}, gaussian, num_tokens)


class Classes(NamedTuple):
    """Of a level, with their prompts: the distinct captions of all templates."""

    level: str
    prompts: dict[str, list[str]]

    def labels(self, samples: Iterable[EmojiSample]) -> Tensor:
        """Of each sample, i64 [N]."""
        places = {name: place for place, name in enumerate(self.prompts)}
        return torch.tensor([places[sample.text(self.level)] for sample in samples])

    def embedded(self, captions: Captions) -> Gaussian:
        """The prompts, [C, K, D]."""
        flat = captions.of(text for prompts in self.prompts.values() for text in prompts)
        return flat.unflatten(len(self.prompts), -1)


class Embedded(NamedTuple):
    """The sets of a split, as a model sees them."""

    model: Model
    sets: list[EmojiSet]
    captions: Captions
    classes: list[Classes]
    trained: list[EmojiSample]
    """That the model was trained on."""


def run_emoji(model: Model, options: EmojiOptions, cache: TaskCache) -> SuiteResult:
    """Measure a ProLIP model, with an untrained one's values as baselines."""
    check(options.precision == "fp32", "precision", "must be fp32 for the emoji suite", options.precision)
    check(model.has_variances, "checkpoint", "must have variances", model.name)
    names = set_names(options.split)
    samples = {name: read_set(options.data, name) for name in (*names, TRAINED)}
    rows, before = (measure(embed_sets(one, samples, names)) for one in (model, untrained(model)))
    rows = [
        dataclasses.replace(row, baselines={"untrained": old.value, **row.baselines})
        for row, old in zip(rows, before, strict=True)
    ]
    charts = [Chart(group=heading, text=text, svg="") for heading, text in TEXTS.items()]
    sources = "; ".join(f"{one['part']}: {one['credit']} ({one['licence']}), {one['source']}" for one in ATTRIBUTIONS)
    charts.append(Chart(group="Sources of the images and names", text=sources, svg=""))
    return SuiteResult(suite="emoji", model=model.name, fingerprint=model.fingerprint(), rows=rows, charts=charts)


def embed_sets(model: Model, samples: Mapping[str, list[EmojiSample]], names: Sequence[str]) -> Embedded:
    """The named sets, and the captions of all samples."""
    sets = [EmojiSet(name, samples[name], embed_images(model, samples[name])) for name in names]
    every = [sample for some in samples.values() for sample in some]
    classes = [find_classes(level, every) for level in ("group", "subgroup")]
    return Embedded(model, sets, embed_captions(model, every), classes, samples[TRAINED])


def embed_images(model: Model, samples: Sequence[EmojiSample]) -> Gaussian:
    """[N, D]"""
    return model.encode_images([sample.png for sample in samples], progress=False)


def find_classes(level: str, samples: Iterable[EmojiSample]) -> Classes:
    """Of the samples at a level, in order of first appearance."""
    return Classes(level, {sample.text(level): list(dict.fromkeys(sample.captions[level])) for sample in samples})


def correct_pairs(samples: Sequence[EmojiSample]) -> Tensor:
    """Correct names of each image, bool [N, N]: its own, equal names, and the names of equal images."""
    by_image, by_name = string_ids([[sample.image_id, sample.text("name")] for sample in samples]).T
    return same_group(by_image, by_image) | same_group(by_name, by_name)


# ---- Measures -------------------------------------------------------------------------------------------------------


def measure(embedded: Embedded) -> list[Row]:
    """All figures, the headlines first."""
    sets = [one for one in embedded.sets if one.name != TRAINED]
    unseen = [sample for one in sets for sample in one.samples]
    found = [(RIGHT, one.title, right_rows(embedded, one)) for one in embedded.sets]
    found.append((ORDER, "unseen names", order_rows(unseen, embedded.captions)))
    found.append((ORDER, "trained names", order_rows(embedded.trained, embedded.captions)))
    found += [(INCLUSION, one.title, inclusion_rows(embedded, one)) for one in sets]
    found += [(VIEWS, one.title, view_rows(embedded, one)) for one in sets]
    replace = dataclasses.replace
    by_id = {replace(row.id, data=data): (group, row) for group, data, rows in found for row in rows}
    places = {"first": embedded.sets[0].title, "last": embedded.sets[-1].title}
    headlines = [
        replace(by_id[replace(id, data=places.get(data, data))][1], id=replace(id, data=title), main=True)
        for title, (data, id) in _HEADLINES.items()
    ]
    others = [replace(row, id=replace(id, group=group), main=False) for id, (group, row) in by_id.items()]
    return headlines + others


def right_rows(embedded: Embedded, one: EmojiSet) -> list[Row]:
    """Classification and retrieval on one set."""
    rows = []
    for classes in embedded.classes:
        labels, prompts = classes.labels(one.samples), classes.embedded(embedded.captions)
        found = accuracy_rows(answer(one.images, aggregate_prompts(prompts), with_var=True), labels)
        shares = label_shares(classes.labels(embedded.trained), len(classes.prompts))
        prior = log_prior(shares, len(shares))
        logits = weigh(one.images, prompts, None, embedded.model.similarity).with_prior(prior).logits
        found.append(row_of_items(RowId("accuracy_with_frequencies"), logits.argmax(dim=1) == labels))
        chance = {f"largest {classes.level}": float(labels.bincount().max() / len(labels))}
        for row in found:
            id, baselines = (
                dataclasses.replace(row.id, of=classes.level),
                chance if row.id.measure in _OF_ANSWERS else {},
            )
            rows.append(dataclasses.replace(row, id=id, baselines=baselines))
    names, correct = embedded.captions.of(sample.text("name") for sample in one.samples), correct_pairs(one.samples)
    for way, ranks, pairs in (
        ("image_to_text", first_ranks(one.images, names, correct), correct),
        ("text_to_image", first_ranks(names, one.images, correct.T), correct.T),
    ):
        for k in RECALL_AT:
            row = row_of_items(RowId("recall_at", way=way, at=k), ranks < k)
            rows.append(dataclasses.replace(row, baselines={"random order": chance_recall(pairs, k)}))
    return rows


def order_rows(samples: Sequence[EmojiSample], captions: Captions) -> list[Row]:
    """How often an emoji's more general caption is the more uncertain one, within the same template.

    "Not longer" counts only pairs whose specific caption has no more tokens.
    """
    distinct = list({sample.codepoint: sample for sample in samples}.values())
    rows = []
    for general, specific in (("group", "name"), ("subgroup", "name"), ("group", "subgroup")):
        (wide, longest), (narrow, tokens) = (captions.at(level, distinct) for level in (general, specific))
        more, not_longer = more_uncertain(wide.total_var, narrow.total_var), (tokens <= longest).flatten()
        id = RowId(f"{general}_over_{specific}")
        rows.append(dataclasses.replace(row_of_items(id, more.mean(dim=1)), baselines={"coin": 0.5}))
        id = RowId(f"{id.measure}_not_longer")
        rows.append(row_of_items(id, more.flatten(), not_longer, statistic="mean_of_chosen"))
    return rows


def inclusion_rows(embedded: Embedded, one: EmojiSet) -> list[Row]:
    """How often a specific item has a positive inclusion score in a general one; a tie counts half."""
    levels = {level: embedded.captions.at(level, one.samples)[0] for level in reversed(LEVELS)}
    images, steps = one.images.unflatten(-1, 1), [*levels.items()]
    pairs = [("image", images, *step) for step in steps]
    pairs += [(*specific, *general) for specific, general in pairwise(steps)]
    return [
        row_of_items(
            RowId(f"{name}_inside_{other}"),
            (inclusion_score(specific, general).double().sum(dim=-1).sign() / 2 + 0.5).mean(dim=1),
        )
        for name, specific, other, general in pairs
    ]


def view_rows(embedded: Embedded, one: EmojiSet) -> list[Row]:
    """How often an image is more uncertain if patches are hidden, and if it is blurred."""
    model = embedded.model
    views = {
        "hidden_patches": hide_patches(model, model.keep_ratio or 0.25),
        "blurred_image": view_of(model, partial(blurred, share=0.04)),
    }
    rows = []
    for name, view in views.items():
        changed = dataclasses.replace(model, encoder=dataclasses.replace(model.encoder, encode_pixels=view))
        seen = embed_images(changed, one.samples)
        rows.append(
            row_of_items(RowId("more_uncertain", by=name), more_uncertain(seen.total_var, one.images.total_var))
        )
    return rows
