"""Answer the questions of the page: similarities, uncertainties and classes of images and captions.

N items, C labels, K prompts per label, D dimensions.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from torch import Tensor

from prolip.embeddings.contact_sheet import SIDE
from prolip.embeddings.search import Hit, promise
from prolip.errors import UserError, check
from prolip.explore.answer import (
    Answer,
    Bar,
    Column,
    Range,
    bar,
    inclusions,
    percent,
    shares,
    signed,
    uncertainties,
)
from prolip.explore.samples import Item
from prolip.gaussian import Gaussian, csd, csd_logits, inclusion_score
from prolip.inference.classify import NOTHING, Classification, Decide, check_subject, classification
from prolip.inference.encoder import Sample, in_batches, joined
from prolip.inference.model import Model
from prolip.metrics.bprw import reweight_prompts
from prolip.metrics.config import BprwConfig, TraversalConfig
from prolip.metrics.hierarchy import items_on_walk
from prolip.metrics.prompts import encode_prompts
from prolip.metrics.retrieval import rank_candidates, retrieval_scores
from prolip.report.page import data_uri

log = logging.getLogger(__name__)

MAX_PROMPTS = 4096
PER_PAGE = 24
UNUSUAL = 0.95
"""Share of the calibration's images that are nearer, from which an image is called out of distribution."""
EVERYDAY = (
    "a picture",
    "an animal",
    "food and drink",
    "a person",
    "a red car in front of a house",
    "two small dogs that play in the snow",
)
"""Examples, and the range of uncertainties, if there is no data set with captions."""
NO_CAPTION = "(the empty caption)"
_EMBED_BATCH = 256
"""Images of the data set that are decoded and embedded at a time."""
_NO_IMAGES = "There is no data set: start with --images or --shards."
_IMAGE_IN_CAPTION = "◂ caption lies in image | image lies in caption ▸"


class Explorer:
    """Answers the questions of the page with a model and the items of a data set.

    Raises:
        UserError: the model has no variances, or no image of the items can be decoded.
    """

    def __init__(self, model: Model, items: Sequence[Item]) -> None:
        check(model.has_variances, "model", "must have variances of both images and texts, to explore uncertainty")
        self.model = model
        # Enough for the prompts of a classifier; several threads ask.
        self._embed = lru_cache(16)(lambda captions: model.encode_texts(captions, progress=False))
        self.items, self._images = self._embed_items(items)
        self.all_captions = list(dict.fromkeys(caption for item in self.items for caption in item.captions))
        # Every tokenizer pads an empty caption at its end.
        self._padding = int(model.tokenize("")[0, -1])
        captions = self.examples = self.all_captions or EVERYDAY
        self._captions = model.encode_texts(captions, progress=False)
        of = f"the data set's {len(captions):,}" if self.all_captions else f"{len(captions)} everyday"
        values = self._captions.total_var
        self.caption_range = Range(float(values.min()), float(values.max()), f"of {of} captions")

    def compare(self, image_data: bytes | Path, captions: Sequence[str]) -> Answer:
        """Compare an image with captions; the nearest comes first.

        Raises:
            UserError: there are no captions, or too many.
            prolip.data.DataError: the bytes cannot be decoded as an image.
        """
        captions, image = _clean_lines(captions, "captions"), self._embed_image(image_data)
        distances, order = csd(image, self._texts(captions))[0].sort()
        captions = [captions[place] for place in order.tolist()]
        texts = self._texts(captions)
        value, more_certain = self._uncertainty(image)
        rank = "" if more_certain is None else f"; {percent(more_certain, 0)} of the data set's images are more certain"
        columns = [
            Column(
                "similarity", "of the means, at most 1", [bar(signed(one), one) for one in self._cosines(image, texts)]
            ),
            Column(
                "sampled distance",
                "smaller is nearer; the bar ends at the farthest",
                [bar(f"{one:.3f}", one / float(distances[-1] or 1), "s2") for one in distances.tolist()],
            ),
            uncertainties(texts.total_var.tolist(), self.caption_range),
            inclusions(inclusion_score(image, texts).mean(dim=1).tolist(), _IMAGE_IN_CAPTION),
        ]
        if self.model.logit_bias is not None:
            match = csd_logits(image, texts, self.model.logit_scale, self.model.logit_bias).sigmoid()[0].tolist()
            columns.insert(0, shares("match", "probability of a match, as in training", match))
        text = (
            f"The image's own uncertainty is {value:#.4g}{rank}. The sampled distance is the distance of the means "
            "plus both uncertainties. H says which of the two is wider, not whether they belong together."
        )
        return Answer(text, "caption", captions, columns)

    def pair(self, first: str, second: str) -> Answer:
        """Compare two captions.

        Raises:
            UserError: one of them is empty.
        """
        captions = [*_clean_lines([first], "first caption"), *_clean_lines([second], "second caption")]
        a, b = (self._texts([caption]) for caption in captions)
        values, inside = [float(a.total_var), float(b.total_var)], float(inclusion_score(a, b).mean())
        change = values[0] / values[1] - 1 if values[1] else 0.0
        wider = "Neither lies in the other"
        if inside:
            wider = "The first lies in the second" if inside > 0 else "The second lies in the first"
        lengths = [int((self.model.tokenize(caption) != self._padding).sum()) for caption in captions]
        text = (
            f"The first caption is {percent(abs(change), 2)} {'more' if change >= 0 else 'less'} uncertain than the "
            f"second. {wider}. Similarity of the means: {signed(self._cosines(a, b)[0])}; sampled distance: "
            f"{float(csd(a, b)):.3f}. Longer captions tend to be more certain, so compare captions of equal length."
        )
        columns = [
            uncertainties(values, self.caption_range),
            inclusions([inside, -inside], "◂ contains the other | lies in the other ▸"),
            Column("length", "", [f"{length} tokens" for length in lengths]),
        ]
        return Answer(text, "caption", captions, columns)

    def walk(self, image_data: bytes | Path, captions: Sequence[str], root: str) -> Answer:
        """Return the captions on the way from an image's nearest caption to the root, and the root at the end.

        This is the traversal of HierarCaps (docs/specification.md, section 9), whose root is the empty caption. Without
        `captions`, the captions of the data set are used.

        Raises:
            UserError: there are no captions.
            prolip.data.DataError: the bytes cannot be decoded as an image.
        """
        config, root, image = TraversalConfig(), root.strip(), self._embed_image(image_data)
        candidates, texts = self.all_captions, self._captions
        if "".join(captions).strip() or not candidates:
            candidates = _clean_lines(captions, "captions to walk through")
            texts = self._texts(candidates)
        steps = items_on_walk(image.mean, texts.mean, self._texts([root]).mean, config)[0].tolist()
        # The walk stops before the root, so add it.
        met = [*(candidates[place] for place in steps), root]
        names = list(dict.fromkeys(met))
        places: list[Bar | str] = []
        for name in names:
            first = 100 * met.index(name) / config.num_steps
            last = 100 * min(1.0, (len(met) - met[::-1].index(name)) / config.num_steps)
            text = f"{first:.0f}–{last:.0f}\N{NO-BREAK SPACE}%" if first < last else "the end"
            places.append(Bar(text, min(first, 95), max(5.0, last - first)))
        views = self._texts(names)
        columns = [
            Column("part of the way", "nearest caption to root", places),
            uncertainties(views.total_var.tolist(), self.caption_range),
            inclusions(inclusion_score(image, views).mean(dim=1).tolist(), _IMAGE_IN_CAPTION),
        ]
        text = (
            f"The query starts at the caption nearest to the image and moves in {config.num_steps} steps towards "
            f"“{root or NO_CAPTION}”. The table lists the captions nearest to it on the way. If the model has learnt "
            "the order, they become more general and more uncertain."
        )
        return Answer(text, "caption", [name or NO_CAPTION for name in names], columns)

    def browse(self, kind: str, least_certain: bool, number: int) -> Answer:
        """Return a page of the data set's `images` or captions, ranked by their uncertainty; pages count from 1."""
        if self._images is None:
            return Answer(_NO_IMAGES)
        values, scale, names = self._images.total_var, self.caption_range, self.all_captions
        if kind == "images":
            scale = Range(float(values.min()), float(values.max()), f"of the {len(values):,} images")
            names = [item.title for item in self.items]
        elif names:
            values = self._captions.total_var
        order = values[: len(names)].argsort(stable=True).tolist()[:: -1 if least_certain else 1]
        first, pages = PER_PAGE * (number - 1), -(-len(order) // PER_PAGE)
        shown = order[first : first + PER_PAGE]
        if not shown:
            return Answer(f"There is no page {number}: the data set has {pages} pages of {kind}.")
        heading = f"Page {number} of {pages}: places {first + 1:,} to {first + len(shown):,} of {len(order):,}."
        column = uncertainties(values[shown].tolist(), scale)
        images = []
        if kind == "images":
            heading += f" Uncertainties: {column.hint}."
            images = [data_uri(self.model.preprocess.thumbnail(self.items[place].image, SIDE)) for place in shown]
        return Answer(heading, "caption", [names[place] for place in shown], [column], images)

    def search(self, text: str, max_wrong: float) -> Answer:
        """Return the images nearest to a text, and whether they match, as `prolip search --max_wrong` does.

        Raises:
            UserError: the text is empty, or the calibration has no text queries.
        """
        if self._images is None:
            return Answer(_NO_IMAGES)
        query, known = self._texts(_clean_lines([text], "text")), self.model.search_calibration
        scores = retrieval_scores(query, self._images, "mean" if known is not None and known.score == "mean" else "csd")
        best = rank_candidates(scores)[0, :PER_PAGE].tolist()
        hits = [Hit(float(scores[0, row]), 0, row) for row in best]
        column = Column("score", "", [f"{hit.score:.3f}" for hit in hits])
        if known is None:
            made = f"prolip calibrate search --checkpoint {self.model.name} --data PAIRS"
            told = f"The nearest. To be told if nothing matches, run {made} and start this page again."
        else:
            found = promise(known, "text", len(self.items), hits, None, max_wrong)
            hits = found.hits
            shown = "These match" if found.matches else "Nothing here matches; these are the nearest"
            told = (
                f"{shown}. If no image is right, something is shown for at most {percent(max_wrong, 0)} of the "
                f"queries. This holds for queries and images like those of {known.subject.data}, and for no others."
            )
            if found.probabilities is not None and found.contained is not None:
                column = shares("right", "", found.probabilities)
                told += f" {percent(found.contained, 0)} of the queries that have a right image get results."
        items = [self.items[hit.row] for hit in hits]
        images = [data_uri(self.model.preprocess.thumbnail(item.image, SIDE)) for item in items]
        return Answer(told, "image", [item.title for item in items], [column], images)

    def classify(
        self, image_data: bytes | Path, labels: Sequence[str], templates: Sequence[str], decide: Decide
    ) -> list[Answer]:
        """Classify an image: the decision and label set, both kinds of uncertainty, and the prompts of each label.

        Decisions are made if the model's calibration is for these labels and templates. With images of a data set,
        prompts are also weighted by the nearest of these.

        Raises:
            UserError: there are fewer than two labels, no templates, or too many prompts; or a template lacks `{}`.
            prolip.data.DataError: the bytes cannot be decoded as an image.
        """
        labels, templates = _clean_lines(labels, "labels"), _clean_lines(templates, "templates")
        check(len(labels) >= 2, "labels", "must be at least two", "1")
        if len(labels) * len(templates) > MAX_PROMPTS:
            raise UserError("prompts", f"must be at most {MAX_PROMPTS}", len(labels) * len(templates))
        image, why_not = self._embed_image(image_data), self._why_not(labels, templates)
        known = labels if why_not or self.model.calibration is None else self.model.calibration.labels
        prompts = encode_prompts(templates, known, self._texts)

        def classified(weights: Tensor | None, decide: Decide) -> Classification:
            return classification(
                image,
                prompts,
                labels,
                weights=weights,
                similarity=self.model.similarity,
                decide=decide,
                calibration=self.model.calibration,
            )

        found = classified(None, NOTHING if why_not else decide)
        order = found.probabilities[0].argsort(descending=True, stable=True).tolist()
        names = [labels[place] for place in order]
        columns = [shares("probability", "if exactly one label is right", found.probabilities[0, order].tolist())]
        weighted = Answer(
            "Prompts are not weighted: this needs two templates or more, and images (--images, --shards)."
        )
        if self._images is not None and len(templates) > 1:
            config = BprwConfig(num_neighbors=min(BprwConfig.num_neighbors, len(self.items)))
            weights = reweight_prompts(prompts, self._images, config).weights
            probabilities = classified(weights, NOTHING).probabilities[0, order].tolist()
            columns.append(shares("re-weighted prompts", "not calibrated", probabilities, "s1"))
            weighted = _weighted_prompts(names, templates, weights[order], prompts.total_var[order])
        text = f"{why_not} Probabilities have the model's own scale."
        if self.model.calibration is not None and found.label_sets is not None and found.answers is not None:
            inside, guarantee = found.label_sets[0], percent(decide.guarantee or 0, 0)
            within = ["in the set" if name in inside else "" for name in names]
            columns.append(Column("label set", f"at {guarantee}", within))
            decision = self._decision(found.answers[0], float(found.probabilities.max()), decide.max_error or 0)
            text = (
                f"{decision} Label set: {', '.join(f'“{name}”' for name in inside)}. At least {guarantee} of such sets "
                "contain the right label, on average. The guarantees hold for images like those of "
                f"{self.model.calibration.subject.data}, and for no others."
            )
        return [Answer(text, "label", names, columns), self._uncertainties(image), weighted]

    def _why_not(self, labels: Sequence[str], templates: Sequence[str]) -> str | None:
        """Why the model's calibration gives no guarantee for these labels and templates; None if it does."""
        if self.model.calibration is None:
            made = f"prolip calibrate --checkpoint {self.model.name} --data FOLDER --out FILE"
            return f"There is no calibration. {made} makes one; then start this page with --calibration FILE."
        try:
            check_subject(self.model.calibration, labels, templates)
        except UserError as error:
            return f"There is no guarantee: {error}."
        return None

    def _decision(self, answer: str | None, largest: float, max_error: float) -> str:
        assert self.model.calibration is not None
        limit, threshold = percent(max_error, 0), self.model.calibration.abstention(max_error).threshold
        if answer is not None:
            return f"Answer: “{answer}”. At most {limit} of the answers given are wrong, in 19 of 20 calibrations."
        if math.isinf(threshold):
            return f"Don't know: the calibration cannot promise that at most {limit} of the answers are wrong."
        return (
            f"Don't know: the largest probability is {percent(largest)}, and at most {limit} of the answers are wrong "
            f"only from {percent(threshold)} on."
        )

    def _uncertainties(self, image: Gaussian) -> Answer:
        """The total variance and the distance from known images, each with its rank among known images."""
        value, more_certain = self._uncertainty(image)
        names, measures, text = ["aleatoric: the image is ambiguous"], [f"total variance {value:#.4g}"], ""
        ranks: list[Bar | str] = ["unknown: start with --images or --shards"]
        if more_certain is not None:
            ranks = [bar(f"{percent(more_certain, 0)} are more certain", more_certain, "s1")]
        calibration = self.model.calibration
        if calibration is None:
            text = " The distance from known images needs a calibration."
        else:
            distance = float(calibration.known.distance(image.mean)[0])
            nearer = float((calibration.held.distance < distance).double().mean())
            names.append("out of distribution")
            measures.append(f"distance from known images {distance:#.4g}")
            ranks.append(bar(f"{percent(nearer, 0)} are nearer", nearer, "s1"))
            if nearer >= UNUSUAL:
                text = " This image is unlike the calibration's: no guarantee may hold for it."
        columns = [Column("measure", "", measures), Column("among known images", "", ranks)]
        return Answer(f"Two kinds of uncertainty.{text}", "uncertainty", names, columns)

    def _uncertainty(self, image: Gaussian) -> tuple[float, float | None]:
        """An image's total variance, and the share of the data set's images that are more certain."""
        value = float(image.total_var)
        if self._images is None:
            return value, None
        # If an image of the data set is embedded again alone, its value may differ by rounding.
        return value, float((self._images.total_var < value * (1 - 1e-6)).double().mean())

    def _embed_items(self, items: Sequence[Item]) -> tuple[list[Item], Gaussian | None]:
        """Return the items whose images can be decoded, and the images' Gaussians; None if there are no items."""
        samples = (Sample(item.name, place, item.image) for place, item in enumerate(items))
        rows = joined(self.model.encoder.of_samples(in_batches(samples, _EMBED_BATCH)))
        for bad in rows.bad:
            log.warning("%s is skipped: %s", bad.key, bad.error)
        check(rows.keys or not items, "images", "must have one that can be decoded", len(items))
        return [items[place] for place in rows.places], rows.images.get("image")

    def _embed_image(self, image_data: bytes | Path) -> Gaussian:
        return self.model.encode_images(image_data, progress=False)

    def _texts(self, captions: Sequence[str]) -> Gaussian:
        return self._embed(tuple(captions))

    @staticmethod
    def _cosines(one: Gaussian, others: Gaussian) -> list[float]:
        cosines: list[float] = (one.mean @ others.mean.T)[0].tolist()
        return cosines


def _weighted_prompts(names: Sequence[str], templates: Sequence[str], weights: Tensor, variances: Tensor) -> Answer:
    """The prompts with the largest and the smallest weight of each label; `weights` and `variances` are [C, K]."""
    largest, even = float(weights.max()), 1 / len(templates)
    values = variances.tolist()
    rows, prompts, drawn, uncertain = [], [], [], []
    for name, row, own in zip(names, weights.tolist(), values, strict=True):
        for word, weight in (("prefers", max(row)), ("avoids", min(row))):
            place = row.index(weight)
            rows.append(name if word == "prefers" else "")
            prompts.append(f"{word} “{templates[place].replace('{}', name)}”")
            drawn.append(bar(percent(weight), weight / largest, "s1", 100 * even / largest))
            uncertain.append(own[place])
    scale = Range(float(variances.min()), float(variances.max()), "prompt")
    columns = [
        Column("prompt", "", prompts),
        Column("weight", f"the mark is an even weight, {percent(even)}", drawn),
        uncertainties(uncertain, scale),
    ]
    text = (
        f"The {len(templates)} prompts of each label are weighted by how well they fit the nearest images of the data "
        "set (Bayesian prompt re-weighting). Shown are the prompts with the largest and the smallest weight."
    )
    return Answer(text, "label", rows, columns)


def _clean_lines(lines: Sequence[str], field: str) -> list[str]:
    cleaned = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not 1 <= len(cleaned) <= MAX_PROMPTS:
        raise UserError(field, f"must be 1 to {MAX_PROMPTS}", len(cleaned))
    return cleaned
