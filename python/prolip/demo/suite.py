"""`prolip eval emoji`: generic measures on the emoji shards, beside an untrained model and chance.

N images, C classes, T templates, E emoji, D dimensions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from prolip.build.emoji.attribution import ATTRIBUTIONS
from prolip.build.emoji.captions import LEVELS
from prolip.build.emoji.samples import TITLES, TRAINED, EmojiSample, read_set
from prolip.calibration.calibration import Subject, fit_calibration, save_calibration
from prolip.calibration.config import CALIBRATION_FILE
from prolip.calibration.fitting import label_shares, log_prior
from prolip.demo.config import EmojiOptions
from prolip.demo.samples import (
    Captions,
    Classes,
    correct_pairs,
    embed_captions,
    embed_images,
    find_classes,
    set_names,
)
from prolip.errors import check
from prolip.evaluation.classification import accuracy_rows, answer
from prolip.evaluation.decisions import (
    BASELINE,
    Decided,
    decision_charts,
    probability_rows,
    score_rows,
    set_rows,
)
from prolip.evaluation.results import Chart, Row, RowId, SuiteResult, TaskCache, TaskResult, row_of_items
from prolip.evaluation.uncertainty import accuracy_figures, blurred, hide_patches, view_of
from prolip.gaussian import Gaussian, concatenate, inclusion_score
from prolip.inference.classify import weigh
from prolip.inference.model import Model, untrained
from prolip.metrics.bprw import reweight_prompts
from prolip.metrics.config import BprwConfig
from prolip.metrics.hierarchy import string_ids
from prolip.metrics.prompts import unweighted_classifiers
from prolip.metrics.retrieval import RECALL_AT, chance_recall, first_ranks, rank_candidates, retrieval_scores
from prolip.metrics.uncertainty import more_uncertain
from prolip.metrics.zero_shot import aggregate_prompts, zero_shot_logits
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
    "Uncertainty and accuracy": "Training does not know which answers are right.",
    "Decisions": "A calibration on validation emoji turns probabilities into label sets, which contain the "
    "right group for 90 % of images like these, and into “don't know”, so that at most 20 % of the answers are wrong.",
}
"""What each section of the page asks, and how to read it."""
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
"""Rows that the demo prints: of the first or the last set, or of names."""
GUARANTEE, MAX_ERROR = 0.9, 0.2
_KINDS = {"test": "held-out emoji", "val": "validation emoji", "design": "trained emoji"}
_MIN_FOR_BINS = 100
"""Minimum number of images for ten bins; smaller bins would show noise."""


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


class Embedded(NamedTuple):
    """The sets of a split, as a model sees them."""

    model: Model
    sets: list[EmojiSet]
    captions: Captions
    classes: list[Classes]
    trained: list[EmojiSample]
    """The emoji that the model was trained on."""

    @property
    def held_out(self) -> list[EmojiSet]:
        """The sets of emoji without training."""
        return [one for one in self.sets if one.name != TRAINED]


def run_emoji(model: Model, options: EmojiOptions, cache: TaskCache) -> SuiteResult:
    """Measure a ProLIP model, with the values of an untrained one as baselines, and calibrate its run."""
    check(options.precision == "fp32", "precision", "must be fp32 for the emoji suite", options.precision)
    check(model.has_variances, "checkpoint", "must have variances", model.name)
    names = set_names(options.split)
    samples = {name: read_set(options.data, name) for name in (*names, TRAINED)}
    embedded, before = (embed_sets(one, samples, names) for one in (model, untrained(model)))
    found, by_id = measure(embedded), {row.id: row.value for row in measure(before).rows}
    rows = [dataclasses.replace(row, baselines={"untrained": by_id[row.id], **row.baselines}) for row in found.rows]
    charts = [Chart(group=heading, text=text, svg="") for heading, text in TEXTS.items()]
    charts = [*nearest_galleries(embedded), *charts, *found.charts]
    if options.split == "test" and any(options.data.glob("val-*.tar")):
        decided = decide(embedded, options.data)
        rows, charts = rows + decided.rows, charts + decided.charts
    sources = "; ".join(f"{one['part']}: {one['credit']} ({one['licence']}), {one['source']}" for one in ATTRIBUTIONS)
    charts.append(Chart(group="Sources of the images and names", text=sources, svg=""))
    return SuiteResult(suite="emoji", model=model.name, fingerprint=model.fingerprint(), rows=rows, charts=charts)


def embed_sets(model: Model, samples: Mapping[str, list[EmojiSample]], names: Sequence[str]) -> Embedded:
    """Embed the sets with these names, and the captions of all samples."""
    sets = [EmojiSet(name, samples[name], embed_images(model, samples[name])) for name in names]
    every = [sample for some in samples.values() for sample in some]
    classes = [find_classes(level, every) for level in ("group", "subgroup")]
    return Embedded(model, sets, embed_captions(model, every), classes, samples[TRAINED])


# ---- Measures -------------------------------------------------------------------------------------------------------


def measure(embedded: Embedded) -> TaskResult:
    """All figures that need no calibration, the headlines first."""
    samples = [sample for one in embedded.held_out for sample in one.samples]
    results = [under(RIGHT, right_rows(embedded, one), data=one.title) for one in embedded.sets]
    results.append(under(ORDER, order_rows(samples, embedded.captions), data="unseen names"))
    results.append(under(ORDER, order_rows(embedded.trained, embedded.captions), data="trained names"))
    for one in embedded.held_out:
        results.append(under(INCLUSION, inclusion_rows(embedded, one), data=one.title))
        results.append(under(VIEWS, view_rows(embedded, one), data=one.title))
    results += [prompt_figures(embedded, classes) for classes in embedded.classes]
    results += [uncertainty_figures(embedded, one) for one in embedded.sets if len(one.samples) >= _MIN_FOR_BINS]
    rows = [row for result in results for row in result.rows]
    places = {"first": embedded.sets[0].title, "last": embedded.sets[-1].title}
    by_id = {dataclasses.replace(row.id, group=""): row for row in rows}
    headlines = [
        dataclasses.replace(
            by_id[dataclasses.replace(id, data=places.get(data, data))], id=dataclasses.replace(id, data=title)
        )
        for title, (data, id) in _HEADLINES.items()
    ]
    return TaskResult(
        rows=[dataclasses.replace(row, main=place < len(headlines)) for place, row in enumerate(headlines + rows)],
        charts=[chart for result in results for chart in result.charts],
    )


def under(group: str, rows: Sequence[Row], charts: Sequence[Chart] = (), *, data: str) -> TaskResult:
    """Rows and charts of a set in a section of the page."""
    result = TaskResult(rows=list(rows), charts=list(charts)).named(data)
    rows = [dataclasses.replace(row, id=dataclasses.replace(row.id, group=group)) for row in result.rows]
    charts = [
        dataclasses.replace(chart, group=group, title=": ".join(filter(None, (chart.group, chart.title))))
        for chart in result.charts
    ]
    return TaskResult(rows=rows, charts=charts)


def right_rows(embedded: Embedded, one: EmojiSet) -> list[Row]:
    """Classification and retrieval on one set."""
    rows = []
    for classes in embedded.classes:
        labels, prompts = classes.labels(one.samples), classes.embedded(embedded.captions)
        found = accuracy_rows(answer(one.images, aggregate_prompts(prompts), with_var=True), labels)
        shares = label_shares(classes.labels(embedded.trained), len(classes.names))
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
    """How often the more general caption of an emoji is the more uncertain one, within the same template.

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


def prompt_figures(embedded: Embedded, classes: Classes) -> TaskResult:
    """The gain of filters and of re-weighting over even weights, on emoji without training in all designs.

    Nothing is fitted to these images; those of the last set vote for prompt weights, without labels.
    """
    prompts, scored = classes.embedded(embedded.captions), embedded.sets[:-1]
    samples = [sample for one in scored for sample in one.samples]
    images, labels = concatenate([one.images for one in scored]), classes.labels(samples)
    reweighted = reweight_prompts(prompts, embedded.sets[-1].images, BprwConfig())
    ways = unweighted_classifiers(prompts) | {"bprw": reweighted.as_classifier()}
    even, *others = ((answer(images, way, with_var=False).top[:, 0] == labels).double() for way in ways.values())
    # One item per emoji: its designs tend to be right or wrong together.
    (emoji,) = string_ids([[sample.codepoint for sample in samples]])
    gains = [emoji.bincount(weights=right - even) / emoji.bincount() for right in others]
    rows = [row_of_items(RowId("gain", by=name), gain) for name, gain in zip([*ways][1:], gains, strict=True)]
    title = f"weight of each prompt, {classes.level}"
    drawn = weight_chart(f"{PROMPTS}: {title}", next(iter(classes.prompts.values())), reweighted.weights)
    text = "Templates filled with one class. Dots: means over the classes; bars: the middle 80 %."
    return under(PROMPTS, rows, [Chart(group=title, text=text, svg=drawn)], data=classes.level)


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


def uncertainty_figures(embedded: Embedded, one: EmojiSet) -> TaskResult:
    """Accuracy of the group by the image's uncertainty: rows and a chart."""
    groups = embedded.classes[0]
    classifier = aggregate_prompts(groups.embedded(embedded.captions))
    logits = zero_shot_logits(one.images.mean, classifier.weight, logit_scale=embedded.model.logit_scale)
    uncertainty = one.images.total_var.double()
    found = accuracy_figures(uncertainty, logits, groups.labels(one.samples), 10)
    return under(WRONG, found.rows, found.charts, data=one.title)


# ---- Decisions ------------------------------------------------------------------------------------------------------


def decide(embedded: Embedded, data: Path) -> TaskResult:
    """Label sets, "don't know", probabilities and scores of uncertainty for the groups of held-out emoji.

    The calibration, on the validation emoji of all designs, goes into the run's folder if that has none.
    """
    groups, model = embedded.classes[0], embedded.model
    prompts, results = groups.embedded(embedded.captions), []
    samples = [sample for name in set_names("val") for sample in read_set(data, name)]
    where = f"{data} (validation emoji)"
    subject = Subject(model.name, model.fingerprint(), where, groups.names, groups.templates)
    evidence = weigh(embed_images(model, samples), prompts, None, model.similarity)
    calibration, _ = fit_calibration(evidence, groups.labels(samples), subject)
    if model.calibration is None and Path(model.name).is_dir():
        save_calibration(calibration, Path(model.name) / CALIBRATION_FILE)
    for one in embedded.held_out:
        truth = groups.labels(one.samples)
        own = weigh(one.images, prompts, None, model.similarity)
        evidence = calibration.with_prior(own)
        logits = evidence.logits.double() / calibration.temperature
        confidence, best = logits.softmax(dim=1).max(dim=1)
        right, within = best == truth, calibration.label_sets(evidence, GUARANTEE)
        answered = confidence >= calibration.abstention(MAX_ERROR).threshold
        scores = {(BASELINE, ""): 1 - confidence, ("image_variance", ""): one.images.total_var.double()}
        decided = Decided(logits, {("lac", GUARANTEE): within}, {MAX_ERROR: answered})
        rows = [
            *set_rows(decided, truth, right),
            *probability_rows(own.logits, {("calibrated", ""): logits}, truth),
            *score_rows(scores, right),
        ]
        charts = decision_charts(scores, own.logits, logits, right)
        if one is embedded.sets[0]:
            tiles = []
            for place in _evenly(confidence.argsort(descending=True, stable=True).tolist(), 6):
                ranked = logits[place].argsort(descending=True).tolist()
                said = groups.names[ranked[0]] if answered[place] else "don't know"
                inside = [(groups.names[label], label == truth[place]) for label in ranked if within[place, label]]
                tiles.append(one.samples[place].tile((f"{said} ({confidence[place]:.0%})", False), *inside))
            text = "From the surest to the least sure image: the answer, then the label set."
            charts.append(Chart(title="six images", text=text, svg=gallery(tiles)))
        results.append(under(DECISIONS, [dataclasses.replace(row, main=False) for row in rows], charts, data=one.title))
    return TaskResult(
        rows=[row for result in results for row in result.rows],
        charts=[chart for result in results for chart in result.charts],
    )


# ---- Charts ---------------------------------------------------------------------------------------------------------


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
        charts.append(
            Chart(group="Images and the names nearest to them", title=one.title, text=text, svg=gallery(tiles))
        )
    return charts


def _evenly(places: Sequence[int], count: int) -> list[int]:
    """Up to `count` of the places, evenly spaced: chosen by position, never by hand."""
    count = min(count, len(places))
    return [places[int((step + 0.5) * len(places) / count)] for step in range(count)]
