"""Suite `decisions`: which answers are wrong, how sure to be, how long label sets are, which images are from elsewhere.

Every score of doubt is compared with the largest probability on the same images. Everything that is fitted is fitted on
the other folds of the images. Images from elsewhere are out of distribution.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from prolip.errors import UserError
from prolip.evaluation.config import DecisionsOptions
from prolip.evaluation.datasets import DataSet, name_sources, open_classes, open_dataset
from prolip.evaluation.decision_rows import (
    beside_rows,
    doubt_rows,
    elsewhere_rows,
    fitting_note,
    frequency_rows,
    probability_rows,
    reliability_chart,
    risk_chart,
    set_rows,
)
from prolip.evaluation.decision_scores import (
    FREQUENCIES,
    answer_images,
    doubts_elsewhere,
    find_doubts,
    fold_calibrations,
    plain_doubts,
)
from prolip.evaluation.results import SuiteResult, TaskCache, TaskResult, row_of_items
from prolip.evaluation.run import Prepared, evaluate_sets
from prolip.gaussian import Gaussian
from prolip.pretrained.model import Model
from prolip.pretrained.open import load

NOISE = "noise"
_NUM_NOISE = 500


class Other(NamedTuple):
    """Images from elsewhere, and a model that they were embedded with."""

    model: Model
    images: dict[str, Gaussian]
    """[M, D], by name."""


def run_decisions(model: Model, options: DecisionsOptions, cache: TaskCache) -> SuiteResult:
    """Measure every data set.

    Raises:
        UserError: no data set could be measured, or images from elsewhere cannot be read.
        DataError: images from elsewhere cannot be read.
    """
    others = embed_elsewhere(model, options)
    known = None if options.known is None else _embed_images(model, "known", options.known, options)
    beside: dict[str, Other] = {}
    for name, source in name_sources(options.beside).items():
        found = load(source, tokenizer=options.tokenizer, device=options.device, precision=options.precision)
        beside[name] = Other(found, embed_elsewhere(found, options))
    elsewhere = [*others.values(), *([] if known is None else [known])]
    read = [float(images.mean.double().square().mean(0).amax()) for images in elsewhere]

    def prepare(name: str, source: str) -> Prepared:
        data = open_classes(source, cache.made, options.store, options.templates, options.classnames)
        settings = {
            "data": data.fingerprint,
            "lists": [data.classnames, data.templates],
            "options": [options.num_folds, options.seed, options.known is None, *others],
            "elsewhere": read,
            "beside": {label: other.model.fingerprint() for label, other in beside.items()},
        }
        return settings, partial(measure_decisions, model, name, data, others, known, options, beside)

    return evaluate_sets("decisions", model, name_sources(options.data), cache, prepare)


def measure_decisions(
    model: Model,
    name: str,
    data: DataSet,
    others: dict[str, Gaussian],
    known: Gaussian | None,
    options: DecisionsOptions,
    beside: Mapping[str, Other],
) -> TaskResult:
    """Measure one data set.

    Args:
        model: any evaluated model.
        name: name of the data set, for the rows.
        data: the labelled images.
        others: images from elsewhere, by name.
        known: images that the model was trained on; None for the other folds.
        options: number of folds, seed, batch size.
        beside: other models, by name, whose doubts about the model's answers are compared with its own.

    Raises:
        UserError: there are too few images for the folds.
        DataError: an image has no label, or too many cannot be read.
    """
    answered = answer_images(model, data, options)
    folded = fold_calibrations(model, data, answered, options)
    doubts = find_doubts(model, answered, folded, known)
    right = answered.correct
    seen = {label: answer_images(other.model, data, options) for label, other in beside.items()}
    for label, other in beside.items():
        doubts |= _named(plain_doubts(other.model, seen[label].images, seen[label].classes), label)
    scaled = {"temperature": folded.even.logits, FREQUENCIES: folded.with_frequencies.logits} | {
        f"by {label}": one.evidence.logits for label, one in seen.items()
    }
    accuracy = row_of_items(name, "accuracy", right.double(), main=True)
    rows = [
        accuracy,
        *doubt_rows(name, doubts, right),
        *probability_rows(name, answered.evidence.logits, scaled, answered.truth),
        *set_rows(name, folded.even, answered.truth, right),
        *frequency_rows(name, accuracy, folded.with_frequencies, answered.truth),
    ]
    for label, one in seen.items():
        its_folded = fold_calibrations(beside[label].model, data, one, options)
        rows += beside_rows(name, label, accuracy, one, its_folded.even)
    for outside, images in others.items():
        there = doubts_elsewhere(model, answered, folded, images, known)
        for label, other in beside.items():
            there |= _named(plain_doubts(other.model, other.images[outside], seen[label].classes), label)
        rows += elsewhere_rows(name, outside, doubts, there)
    charts = [
        risk_chart(name, doubts, right),
        reliability_chart(name, answered.evidence.logits, folded.even.logits, right),
    ]
    note = fitting_note(name, answered, folded, doubts, 0 if known is None else len(known.mean))
    return TaskResult(rows=rows, notes=[note], charts=charts)


def _named(doubts: Mapping[str, Tensor], model: str) -> dict[str, Tensor]:
    """Return scores with another model's name added to theirs."""
    return {f"{name} of {model}": doubt for name, doubt in doubts.items()}


def embed_elsewhere(model: Model, options: DecisionsOptions) -> dict[str, Gaussian]:
    """Embed the images from elsewhere, and noise, by name.

    Raises:
        UserError: a source would have the name of the noise.
    """
    sources = name_sources(options.elsewhere)
    if NOISE in sources:
        raise UserError(f"elsewhere has {sources[NOISE]}: rename it, since {NOISE} is the name of random pixels")
    found = {name: _embed_images(model, "elsewhere", source, options) for name, source in sources.items()}
    return found | {NOISE: embed_noise(model, _NUM_NOISE, options.batch_size, options.seed)}


def embed_noise(model: Model, count: int, batch_size: int, seed: int) -> Gaussian:
    """Embed images of independent uniform pixels."""
    draws = torch.Generator().manual_seed(seed)
    pixels = (torch.randint(256, (3, *model.preprocess.size), generator=draws, dtype=torch.uint8) for _ in range(count))
    return model.encode_images(pixels, batch_size=batch_size, progress=False)


def _embed_images(model: Model, option: str, source: str, options: DecisionsOptions) -> Gaussian:
    """Embed the images of a folder, of shards, or of a data set in the published layout, which an option names."""
    folder = Path(source)
    published = folder.is_dir() and any(folder.rglob("*.tar"))
    images = open_dataset(source, folder).shards if published else source
    try:
        return model.encode_images(images, batch_size=options.batch_size, progress=False, store=options.store)
    except UserError as error:
        raise UserError(f"{option} is {source}: {error}") from error
