"""`prolip eval emoji`: generic measures on the emoji shards, beside an untrained model and chance.

N images, C classes, T templates, E emoji, D dimensions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from prolip.decisions.calibration import Calibration, Subject, fit_calibration, save_calibration
from prolip.decisions.config import CALIBRATION_FILE
from prolip.decisions.fitting import label_shares, log_prior
from prolip.demo.config import EmojiOptions, EvalSplit
from prolip.demo.data.attribution import ATTRIBUTIONS
from prolip.demo.data.captions import LEVELS
from prolip.demo.samples import (
    TITLES,
    TRAINED,
    Captions,
    Classes,
    EmojiSample,
    correct_pairs,
    embed_captions,
    find_classes,
    read_pixels,
    read_set,
    set_names,
)
from prolip.errors import UserError
from prolip.evaluation.classification import accuracy_rows, answer
from prolip.evaluation.decision_rows import doubt_rows, probability_rows, reliability_chart, risk_chart, set_rows
from prolip.evaluation.decision_scores import BASELINE, Decided
from prolip.evaluation.results import Chart, Row, SuiteResult, TaskCache, TaskResult, row_of_items
from prolip.evaluation.uncertainty import accuracy_figures, blurred, hide_patches
from prolip.gaussian import Gaussian, concatenate, inclusion_score
from prolip.metrics.bprw import reweight_prompts
from prolip.metrics.config import BprwConfig
from prolip.metrics.hierarchy import string_ids
from prolip.metrics.prompts import unweighted_classifiers
from prolip.metrics.retrieval import RECALL_AT, chance_recall, first_ranks, rank_candidates, retrieval_scores
from prolip.metrics.uncertainty import more_uncertain
from prolip.metrics.zero_shot import aggregate_prompts, zero_shot_logits
from prolip.models import ProLIP
from prolip.pretrained.classify import weigh
from prolip.pretrained.model import Model, of_prolip
from prolip.report.charts import weight_chart
from prolip.report.page import gallery

RIGHT, PROMPTS, ORDER, INCLUSION, VIEWS, WRONG, DECISIONS = TEXTS = {
    "How often is it right?": "“Frequencies known”: the model also knows how frequent each class is among the trained "
    "emoji. Names are ranked by sampled distance; equal images count as one.",
    "Which prompts should count?": "Filters drop the more uncertain prompts of a class. Re-weighting (BPRW) weights "
    "prompts by unlabelled images of other emoji. An interval that contains zero shows no effect.",
    "Are general captions wider than specific ones?": "Training asks for this order, but never about unseen names. "
    "Chance is 50 %. “Not longer” counts pairs in which the length of the caption cannot be the reason.",
    "Does the specific lie inside the general?": "Share of pairs with an inclusion score H above zero: the second "
    "Gaussian is the wider one. It does not say that the two belong together.",
    "What makes an image less certain?": "Training asks for the effect of hidden patches, not of blur.",
    "Is it wrong where it is unsure?": "Training does not know which answers are right.",
    "What can you rely on?": "A calibration on validation emoji turns probabilities into label sets, which contain the "
    "right group for 90 % of images like these, and into “don't know”, so that at most 20 % of the answers are wrong.",
}
"""What each section of the page asks, and how to read it."""
GUARANTEE, MAX_ERROR = 0.9, 0.2
_KINDS = {"test": "held-out emoji", "val": "validation emoji", "design": "trained emoji"}
_MIN_FOR_BINS = 100
"""Minimum number of images for ten bins; smaller bins would show noise."""


class EmojiSet(NamedTuple):
    """A set of images, as a model sees it."""

    name: str
    samples: list[EmojiSample]
    pixels: Tensor
    """f32 [N, 3, H, W]"""
    images: Gaussian
    """[N, D]"""

    @property
    def title(self) -> str:
        """What is shown: "held-out emoji, OpenMoji"."""
        kind, _, design = self.name.partition("-")
        return f"{_KINDS[kind]}, {TITLES[design]}"


class Embedded(NamedTuple):
    """The sets of a split, as a model sees them."""

    model: Model
    sets: list[EmojiSet]
    captions: Captions
    classes: list[Classes]
    """Groups and subgroups."""
    trained: list[EmojiSample]
    """The emoji that the model was trained on."""

    @property
    def held_out(self) -> list[EmojiSet]:
        """The sets of emoji without training."""
        return [one for one in self.sets if one.name != TRAINED]


def run_emoji(model: Model, options: EmojiOptions, cache: TaskCache) -> SuiteResult:
    """Measure a ProLIP model, with the values of an untrained one as baselines, and calibrate its run.

    Raises:
        UserError: it is not a ProLIP model with variances, a shard is missing, or the precision is not fp32.
    """
    if options.precision != "fp32":
        raise UserError(f"precision: the emoji suite measures in fp32 (got {options.precision})")
    if not model.has_variances:
        raise UserError(f"{model.name}: the emoji suite measures variances, which it has not")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ProLIP(model.require_prolip().config)
    untrained = of_prolip(network, model.require_tokenizer(), "untrained", model.device, keep_ratio=model.keep_ratio)
    samples = {name: read_set(options.data, name) for name in (*set_names(options.split), TRAINED)}
    embedded, before = (embed_sets(one, samples, set_names(options.split)) for one in (model, untrained))
    by_key = {row.key: row.value for row in measure(before, options.split)}
    rows = [
        dataclasses.replace(row, baselines={"untrained": by_key[row.key], **row.baselines})
        for row in measure(embedded, options.split)
    ]
    charts = [*nearest_galleries(embedded)]
    charts += [Chart(title=heading, text=text, svg="") for heading, text in TEXTS.items()]
    found = [uncertainty_figures(embedded, one) for one in embedded.sets if len(one.samples) >= _MIN_FOR_BINS]
    if options.split == "test" and any(options.data.glob("val-*.tar")):
        calibration = calibrate(embedded, options.data)
        if model.calibration is None and Path(model.name).is_dir():
            save_calibration(calibration, Path(model.name) / CALIBRATION_FILE)
        found += decide(embedded, calibration)
    sources = "; ".join(f"{one['part']}: {one['credit']} ({one['licence']}), {one['source']}" for one in ATTRIBUTIONS)
    charts += [
        *weight_charts(embedded),
        *(chart for result in found for chart in result.charts),
        Chart(title="Sources of the images and names", text=sources, svg=""),
    ]
    rows += [dataclasses.replace(row, main=False) for result in found for row in result.rows]
    return SuiteResult(suite="emoji", model=model.name, fingerprint=model.fingerprint(), rows=rows, charts=charts)


def embed_sets(model: Model, samples: Mapping[str, list[EmojiSample]], names: Sequence[str]) -> Embedded:
    """Embed the sets with these names, and the captions of all samples."""
    sets = []
    for name in names:
        pixels = read_pixels(model, samples[name])
        sets.append(EmojiSet(name, samples[name], pixels, encode(model, pixels, model.encode_pixels)))
    every = [sample for some in samples.values() for sample in some]
    classes = [find_classes(level, every) for level in ("group", "subgroup")]
    return Embedded(model, sets, embed_captions(model, every), classes, samples[TRAINED])


def encode(model: Model, pixels: Tensor, view: Callable[[Tensor], Gaussian]) -> Gaussian:
    """Embed a view of images, [N, D] on the CPU."""
    with model.running():
        parts = [view(some.to(model.device)) for some in torch.split(pixels, 256)]
    return concatenate([Gaussian(*(tensor.float().cpu() for tensor in part)) for part in parts])


# ---- Measures -------------------------------------------------------------------------------------------------------


def measure(embedded: Embedded, split: EvalSplit) -> list[Row]:
    """All rows that need no calibration, the headlines first."""
    samples = [sample for one in embedded.held_out for sample in one.samples]
    rows = [row for one in embedded.sets for row in right_rows(embedded, one)]
    for classes in embedded.classes:
        rows += prompt_rows(embedded, classes)
    rows += order_rows(f"{ORDER}: unseen names", samples, embedded.captions)
    rows += order_rows(f"{ORDER}: trained names", embedded.trained, embedded.captions)
    rows += [row for one in embedded.held_out for row in (*inclusion_rows(embedded, one), *view_rows(embedded, one))]
    by_key, first, last = {row.key: row for row in rows}, embedded.sets[0], embedded.sets[-1]
    place = "the held-out design" if split == "test" else "validation emoji in the held-out design"
    headlines = []
    for classes in embedded.classes:
        level, labels = classes.level, classes.labels(first.samples)
        share = float(labels.bincount().max() / len(labels))
        for metric, words in (("accuracy", "zero-shot"), (_KNOWN, f"with the {level}s' frequencies")):
            label = f"{level.capitalize()} of a held-out emoji, {words}"
            headlines.append((label, f"{RIGHT}: {level}, {first.title}: {metric}", f"largest {level}", share))
    chance = chance_recall(correct_pairs(last.samples), 10)
    key = f"{RIGHT}: names, {last.title}: image to name R@10"
    headlines.append((f"Right caption in the first 10, {place}", key, "random order", chance))
    for words in ("unseen", "trained"):
        label = f"Group caption more uncertain than the name, {words} names"
        headlines.append((label, f"{ORDER}: {words} names: group over name", "coin", 0.5))
    return [
        *(
            dataclasses.replace(by_key[key], task=label, main=True, baselines={name: chance})
            for label, key, name, chance in headlines
        ),
        *(dataclasses.replace(row, main=False) for row in rows),
    ]


_KNOWN = "accuracy, frequencies known"


def right_rows(embedded: Embedded, one: EmojiSet) -> list[Row]:
    """Classification and retrieval on one set."""
    rows = []
    for classes in embedded.classes:
        task = f"{RIGHT}: {classes.level}, {one.title}"
        labels, prompts = classes.labels(one.samples), classes.embedded(embedded.captions)
        rows += accuracy_rows(task, answer(one.images, aggregate_prompts(prompts), with_var=True), labels)
        shares = label_shares(classes.labels(embedded.trained), len(classes.names))
        prior = log_prior(shares, len(shares))
        logits = weigh(one.images, prompts, None, embedded.model.similarity).with_prior(prior).logits
        rows.append(row_of_items(task, _KNOWN, (logits.argmax(dim=1) == labels).double()))
    names, correct = embedded.captions.of(sample.text("name") for sample in one.samples), correct_pairs(one.samples)
    for way, ranks in (
        ("image to name", first_ranks(one.images, names, correct)),
        ("name to image", first_ranks(names, one.images, correct.T)),
    ):
        task = f"{RIGHT}: names, {one.title}"
        rows += [row_of_items(task, f"{way} R@{k}", (ranks < k).double()) for k in RECALL_AT]
    return rows


def order_rows(task: str, samples: Sequence[EmojiSample], captions: Captions) -> list[Row]:
    """How often the more general caption of an emoji is the more uncertain one, within the same template.

    "Not longer" counts only pairs whose specific caption has no more tokens.
    """
    distinct = list({sample.codepoint: sample for sample in samples}.values())
    rows = []
    for general, specific in (("group", "name"), ("subgroup", "name"), ("group", "subgroup")):
        (wide, longest), (narrow, tokens) = (captions.at(level, distinct) for level in (general, specific))
        more, counted = more_uncertain(wide.total_var, narrow.total_var), (tokens <= longest).long().flatten()
        metric = f"{general} over {specific}"
        rows.append(row_of_items(task, metric, more.mean(dim=1)))
        metric = f"{metric}, {specific} not longer"
        rows.append(row_of_items(task, metric, more.flatten(), counted, statistic="mean_of_chosen"))
    return rows


def prompt_rows(embedded: Embedded, classes: Classes) -> list[Row]:
    """The gain of filters and of re-weighting over even weights, on emoji without training in all designs.

    Nothing is fitted to these images; those of the last set vote for prompt weights, without labels.
    """
    prompts, scored = classes.embedded(embedded.captions), embedded.sets[:-1]
    samples = [sample for one in scored for sample in one.samples]
    images, labels = concatenate([one.images for one in scored]), classes.labels(samples)
    ways = unweighted_classifiers(prompts)
    ways["BPRW"] = reweight_prompts(prompts, embedded.sets[-1].images, BprwConfig()).as_classifier()
    even, *others = (answer(images, way, with_var=False).best[:, 0] == labels for way in ways.values())
    # One item per emoji: its designs tend to be right or wrong together.
    (emoji,) = string_ids([[sample.codepoint for sample in samples]])
    gains = [emoji.bincount(weights=right.double() - even.double()) / emoji.bincount() for right in others]
    task = f"{PROMPTS}: {classes.level}"
    return [row_of_items(task, f"gain of {name}", gain) for name, gain in zip([*ways][1:], gains, strict=True)]


def inclusion_rows(embedded: Embedded, one: EmojiSet) -> list[Row]:
    """How often a specific item has a positive inclusion score in a general one; a tie counts half."""
    levels = {level: embedded.captions.at(level, one.samples)[0] for level in reversed(LEVELS)}
    images, steps = one.images.unflatten(-1, 1), [*levels.items()]
    pairs = [("image", images, *step) for step in steps]
    pairs += [(*specific, *general) for specific, general in pairwise(steps)]
    return [
        row_of_items(
            f"{INCLUSION}: {one.title}",
            f"{name} ⊂ {other}",
            (inclusion_score(specific, general).double().sum(dim=-1).sign() / 2 + 0.5).mean(dim=1),
        )
        for name, specific, other, general in pairs
    ]


def view_rows(embedded: Embedded, one: EmojiSet) -> list[Row]:
    """How often an image is more uncertain if patches are hidden, and if it is blurred."""
    model = embedded.model
    views: dict[str, Callable[[Tensor], Gaussian]] = {
        "patches hidden": hide_patches(model, model.keep_ratio or 0.25),
        "blurred": lambda pixels: model.encode_pixels(blurred(pixels, 0.04)),
    }
    more = {
        name: more_uncertain(encode(model, one.pixels, view).total_var, one.images.total_var)
        for name, view in views.items()
    }
    return [row_of_items(f"{VIEWS}: {one.title}", name, items) for name, items in more.items()]


def uncertainty_figures(embedded: Embedded, one: EmojiSet) -> TaskResult:
    """Accuracy of the group by the image's uncertainty: rows and a chart."""
    groups = embedded.classes[0]
    classifier = aggregate_prompts(groups.embedded(embedded.captions))
    logits = zero_shot_logits(one.images.mean, classifier.weight, logit_scale=embedded.model.logit_scale)
    uncertainty = one.images.total_var.double()
    return _under(WRONG, accuracy_figures(one.title, uncertainty, logits, groups.labels(one.samples), 10))


def _under(heading: str, found: TaskResult) -> TaskResult:
    """The result under a heading of the page."""
    rows = [
        dataclasses.replace(
            row, task=f"{heading}: {row.task}", difference_of=[f"{heading}: {key}" for key in row.difference_of]
        )
        for row in found.rows
    ]
    return TaskResult(
        rows=rows, charts=[dataclasses.replace(chart, title=f"{heading}: {chart.title}") for chart in found.charts]
    )


# ---- Decisions ------------------------------------------------------------------------------------------------------


def calibrate(embedded: Embedded, data: Path) -> Calibration:
    """Calibrate the model for the groups, on the validation emoji of all designs."""
    groups, model = embedded.classes[0], embedded.model
    samples = [sample for name in set_names("val") for sample in read_set(data, name)]
    images = encode(model, read_pixels(model, samples), model.encode_pixels)
    where = f"{data} (validation emoji)"
    subject = Subject(model.name, model.fingerprint(), where, groups.names, groups.templates)
    evidence = weigh(images, groups.embedded(embedded.captions), None, model.similarity)
    calibration, _ = fit_calibration(evidence, groups.labels(samples), subject)
    return calibration


def decide(embedded: Embedded, calibration: Calibration) -> list[TaskResult]:
    """Label sets, "don't know", probabilities and scores of uncertainty for the groups of held-out emoji."""
    groups, found = embedded.classes[0], []
    for one in embedded.held_out:
        truth = groups.labels(one.samples)
        own = weigh(one.images, groups.embedded(embedded.captions), None, embedded.model.similarity)
        evidence = calibration.with_prior(own)
        logits = evidence.logits.double() / calibration.temperature
        confidence, best = logits.softmax(dim=1).max(dim=1)
        right, within = best == truth, calibration.label_sets(evidence, GUARANTEE)
        answered = confidence >= calibration.abstention(MAX_ERROR).threshold
        doubts = {BASELINE: 1 - confidence, "image's variance": one.images.total_var.double()}
        decided = Decided(logits, {("lac", GUARANTEE): within}, {MAX_ERROR: answered})
        rows = [
            *set_rows(one.title, decided, truth, right),
            *probability_rows(one.title, own.logits, {"calibrated": logits}, truth),
            *doubt_rows(one.title, doubts, right),
        ]
        charts = [risk_chart(one.title, doubts, right), reliability_chart(one.title, own.logits, logits, right)]
        tiles = []
        for place in _evenly(confidence.argsort(descending=True, stable=True).tolist(), 6):
            ranked = logits[place].argsort(descending=True).tolist()
            said = groups.names[ranked[0]] if answered[place] else "don't know"
            inside = [(groups.names[label], label == truth[place]) for label in ranked if within[place, label]]
            tiles.append(one.samples[place].tile((f"{said} ({confidence[place]:.0%})", False), *inside))
        text = "From the surest to the least sure image: the answer, then the label set."
        charts.append(Chart(title=f"{one.title}: six images", text=text, svg=gallery(tiles)))
        found.append(_under(DECISIONS, TaskResult(rows=rows, charts=charts)))
    return found


# ---- Charts ---------------------------------------------------------------------------------------------------------


def weight_charts(embedded: Embedded) -> list[Chart]:
    """The weight of each template, filled with the first class."""
    charts = []
    for classes in embedded.classes:
        weights = reweight_prompts(classes.embedded(embedded.captions), embedded.sets[-1].images, BprwConfig()).weights
        title = f"weight of each prompt, {classes.level}"
        drawn = weight_chart(title, next(iter(classes.prompts.values())), weights)
        text = "Templates filled with one class. Dots: means over the classes; bars: the middle 80 %."
        charts.append(Chart(title=f"{PROMPTS}: {title}", text=text, svg=drawn))
    return charts


def nearest_galleries(embedded: Embedded) -> list[Chart]:
    """Images of a trained and of the held-out design, evenly spaced in their set, with the three nearest names."""
    charts = []
    for one in (embedded.sets[0], embedded.sets[-1]):
        names, correct, tiles = [sample.text("name") for sample in one.samples], correct_pairs(one.samples), []
        ranked = rank_candidates(retrieval_scores(one.images, embedded.captions.of(names))).tolist()
        for place in _evenly(range(len(names)), 8):
            nearest = {names[other]: bool(correct[place, other]) for other in ranked[place]}
            tiles.append(one.samples[place].tile(*[*nearest.items()][:3]))
        text = "The model chooses among the names of all images of the set; a tick marks a right one."
        charts.append(Chart(title=f"Images and the names nearest to them: {one.title}", text=text, svg=gallery(tiles)))
    return charts


def _evenly(places: Sequence[int], count: int) -> list[int]:
    """Up to `count` of the places, evenly spaced: chosen by position, never by hand."""
    count = min(count, len(places))
    return [places[int((step + 0.5) * len(places) / count)] for step in range(count)]
