"""Suite `imagenet`: even, filtered and re-weighted (BPRW) prompts on ImageNet and its shifts, or on similar data sets.

N images, C classes, D dimensions.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from prolip.data import DataError
from prolip.datasets.data_set import DataSet, find_folder, open_dataset
from prolip.errors import UserError, check, sentence
from prolip.evaluation.classification import answer, build_classifier, embed_labelled, embed_prompts
from prolip.evaluation.config import SETS, ImagenetOptions
from prolip.evaluation.evaluate import Prepared, evaluate_sets
from prolip.evaluation.prompt_templates import imagenet_templates
from prolip.evaluation.results import Row, RowId, SuiteResult, TaskCache, TaskResult, row_of_items
from prolip.gaussian import Gaussian
from prolip.inference.model import Model
from prolip.metrics.bprw import labelled_images, reweight_prompts
from prolip.metrics.prompts import unweighted_classifiers
from prolip.metrics.zero_shot import Classifier

NEEDS_VARIANCES = "filters and re-weighting of prompts, accuracy with class variances"


class LabelledSet(NamedTuple):
    """Embedded images with their labels."""

    images: Gaussian
    """[N, D]"""
    labels: Tensor
    """i64 [N]"""
    classnames: list[str]


def run_imagenet(model: Model, options: ImagenetOptions, cache: TaskCache) -> SuiteResult:
    """Evaluate every set whose data exist."""

    def opened(name: str) -> DataSet:
        return open_dataset(find_folder(options.data, (f"wds_{name}_test",)), options.store, options.selection)

    def embed(name: str) -> LabelledSet:
        data = opened(name)
        return LabelledSet(*embed_labelled(model, data, options.batch_size), data.classnames)

    @functools.cache
    def voters() -> LabelledSet:
        return embed(options.voters)

    def prepare(title: str, name: str) -> Prepared:
        data = opened(name)
        templates = data.templates if options.templates == "folder" else imagenet_templates(options.templates)
        try:
            voting = opened(options.voters).fingerprint
        except (UserError, OSError):  # noted by `evaluate_set`
            voting = None
        read = [data.fingerprint, templates, voting]

        def measure() -> TaskResult:
            labelled = voters() if name == options.voters else embed(name)
            return evaluate_set(model, options, title, templates, labelled, voters)

        return read, measure

    sets = {title_of(name): name for name in options.sets}
    return evaluate_sets("imagenet", model, options, sets, cache, prepare, NEEDS_VARIANCES)


def title_of(name: str) -> str:
    """Title of a set in results."""
    return SETS.get(name, name)


def evaluate_set(
    model: Model,
    options: ImagenetOptions,
    title: str,
    templates: Sequence[str],
    data: LabelledSet,
    voters: Callable[[], LabelledSet],
) -> TaskResult:
    """Evaluate all methods on a set; `voters` embeds the set whose labelled images re-weight prompts."""
    if not model.has_variances:
        hits = hits_by_measure(build_classifier(model, data.classnames, templates), data, with_var=False)
        return TaskResult(rows=method_rows("", hits, main=True))
    total = len(templates) * len(data.classnames)
    with tqdm(total=total, desc=f"{title}, prompts", unit="prompt", file=sys.stderr, leave=False) as bar:
        prompts = embed_prompts(model, data.classnames, templates, on_progress=bar.update)
    methods = unweighted_classifiers(prompts, options.filters, (data.images.mean, data.labels))
    even = hits_by_measure(methods.pop("even weights"), data)
    methods["bprw"] = reweight_prompts(prompts, data.images, options.nearest).as_classifier()
    rows = method_rows("", even, main=True)
    for method, classifier in methods.items():
        rows += method_rows(method, hits_by_measure(classifier, data), over=even)
    try:
        labelled = voters()
        labels, scored = voting_labels(labelled, data, options)
        weights = reweight_prompts(prompts, labelled.images, options.few_shot, labels=labels).as_classifier()
    except (UserError, DataError, OSError) as error:
        return TaskResult(rows=rows, notes=[f"few-shot re-weighting: {sentence(error)}"])
    every = hits_by_measure(weights, data)
    few, rest = ({measure: one[scored] for measure, one in hits.items()} for hits in (every, even))
    rows += method_rows("few_shot", few, main=options.score_voters, over=rest)
    if labelled is data:
        rows += method_rows("even_without_voters", rest)
        if options.score_voters:
            rows += method_rows("few_shot_with_voters", every, main=True, over=even)
    return TaskResult(rows=rows)


def hits_by_measure(classifier: Classifier, data: LabelledSet, *, with_var: bool = True) -> dict[str, Tensor]:
    """Which images are right, f64 [N], by means and, `with_var`, with class variances."""
    found = answer(data.images, classifier, with_var=with_var)
    best = {"accuracy": found.top, "accuracy_with_variances": found.top_with_var}
    return {measure: (one[:, 0] == data.labels).double() for measure, one in best.items() if one is not None}


def method_rows(
    method: str, hits: Mapping[str, Tensor], *, main: bool = False, over: Mapping[str, Tensor] | None = None
) -> list[Row]:
    """Accuracy of a method from its hits (`hits_by_measure`), and its gain over other hits on the same images."""
    rows = []
    for measure, hit in hits.items():
        id = RowId(measure, by=method)
        rows.append(row_of_items(id, hit, main=main and measure == "accuracy"))
        if over is not None:
            rows.append(row_of_items(dataclasses.replace(id, minus=""), hit - over[measure]))
    return rows


def voting_labels(labelled: LabelledSet, data: LabelledSet, options: ImagenetOptions) -> tuple[Tensor, Tensor]:
    """The labels of images that can vote, in the classes of `data` (-1 for others), and which of `data` are scored.

    If both sets are the same, the images that vote are not scored.
    """
    scored = torch.ones(len(data.labels), dtype=torch.bool)
    if labelled is data:
        voting = labelled_images(data.labels, len(data.classnames), options.few_shot.num_neighbors)
        scored[voting[voting >= 0]] = False
        check(
            bool(scored.any()), "few_shot.num_neighbors", "must leave images to score", options.few_shot.num_neighbors
        )
        return data.labels, scored
    wrong = [name for name in data.classnames if labelled.classnames.count(name) != 1]
    if wrong and data.classnames != labelled.classnames:
        raise UserError("voters", f"{title_of(options.voters)} must have each class exactly once", f"{wrong[0]!r}")
    places = {name: place for place, name in enumerate(data.classnames)}
    return torch.tensor([places.get(name, -1) for name in labelled.classnames])[labelled.labels], scored
