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
from prolip.errors import UserError, check, sentence
from prolip.evaluation.classification import answer, build_classifier, embed_labelled, embed_prompts
from prolip.evaluation.config import SETS, ImagenetOptions
from prolip.evaluation.datasets import DataSet, find_folder, open_dataset
from prolip.evaluation.evaluate import Prepared, evaluate_sets
from prolip.evaluation.prompt_templates import imagenet_templates
from prolip.evaluation.results import Row, SuiteResult, TaskCache, TaskResult, row_of_items
from prolip.gaussian import Gaussian
from prolip.inference.model import Model
from prolip.metrics.bprw import labelled_images, reweight_prompts
from prolip.metrics.prompts import unweighted_classifiers
from prolip.metrics.zero_shot import Classifier

EVEN, WITH_VAR = "even prompts", "with class variances"
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
        settings = {
            "data": data.fingerprint,
            "templates": templates,
            "nearest": dataclasses.asdict(options.nearest),
            "few_shot": dataclasses.asdict(options.few_shot),
            "voters": voting,
            "filters": dataclasses.asdict(options.filters),
            "score_voters": options.score_voters,
        }

        def measure() -> TaskResult:
            labelled = voters() if name == options.voters else embed(name)
            return evaluate_set(model, options, title, templates, labelled, voters)

        return settings, measure

    sets = {title_of(name): name for name in options.sets}
    return evaluate_sets("imagenet", model, sets, cache, prepare, NEEDS_VARIANCES)


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
        hits = hits_by_score(build_classifier(model, data.classnames, templates), data, with_var=False)
        return TaskResult(rows=method_rows(title, EVEN, hits, main=True))
    total = len(templates) * len(data.classnames)
    with tqdm(total=total, desc=f"{title}, prompts", unit="prompt", file=sys.stderr, leave=False) as bar:
        prompts = embed_prompts(model, data.classnames, templates, on_progress=bar.update)
    methods = unweighted_classifiers(prompts, options.filters, (data.images.mean, data.labels))
    even = hits_by_score(methods.pop("even weights"), data)
    methods["BPRW, nearest"] = reweight_prompts(prompts, data.images, options.nearest).as_classifier()
    rows = method_rows(title, EVEN, even, main=True)
    for method, classifier in methods.items():
        rows += method_rows(title, method, hits_by_score(classifier, data), over=even)
    try:
        labelled = voters()
        labels, scored = voting_labels(labelled, data, options)
        weights = reweight_prompts(prompts, labelled.images, options.few_shot, labels=labels).as_classifier()
    except (UserError, DataError, OSError) as error:
        return TaskResult(rows=rows, notes=[f"{title}: few-shot re-weighting: {sentence(error)}"])
    every = hits_by_score(weights, data)
    few, rest = ({end: one[scored] for end, one in hits.items()} for hits in (every, even))
    rows += method_rows(title, "BPRW, few-shot", few, main=options.score_voters, over=rest)
    if labelled is data:
        rows += method_rows(title, f"{EVEN}, without the few shots", rest)
        if options.score_voters:
            rows += method_rows(title, "BPRW, few-shot, voters scored too", every, main=True, over=even)
    return TaskResult(rows=rows)


def hits_by_score(classifier: Classifier, data: LabelledSet, *, with_var: bool = True) -> dict[str, Tensor]:
    """Which images are right, f64 [N], by means and, `with_var`, with class variances; keys end a figure's name."""
    found = answer(data.images, classifier, with_var=with_var)
    best = {"": found.top, f", {WITH_VAR}": found.top_with_var}
    return {end: (one[:, 0] == data.labels).double() for end, one in best.items() if one is not None}


def method_rows(
    task: str, method: str, hits: Mapping[str, Tensor], *, main: bool = False, over: Mapping[str, Tensor] | None = None
) -> list[Row]:
    """Accuracy of a method from its hits (`hits_by_score`), and its gain over other hits on the same images."""
    rows = [row_of_items(task, f"accuracy, {method}{end}", hit, main=main and not end) for end, hit in hits.items()]
    if over is None:
        return rows
    return rows + [row_of_items(task, f"gain of {method} over {EVEN}{end}", hits[end] - over[end]) for end in hits]


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
