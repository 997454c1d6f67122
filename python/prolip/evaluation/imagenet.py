"""Suite `imagenet`: even, filtered and re-weighted (BPRW) prompts on ImageNet and its shifts, or on similar data sets.

N images, C classes, D dimensions.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from prolip.data import DataError
from prolip.errors import UserError, sentence
from prolip.evaluation.classification import answer, build_classifier, embed_labelled, embed_prompts
from prolip.evaluation.config import SETS, ImagenetOptions
from prolip.evaluation.datasets import DataSet, find_folder, open_dataset
from prolip.evaluation.results import Row, SuiteResult, TaskCache, TaskResult, row_of_items
from prolip.evaluation.run import Prepared, evaluate_sets
from prolip.evaluation.templates import imagenet_templates
from prolip.gaussian import Gaussian
from prolip.metrics.bprw import labelled_images, reweight_prompts
from prolip.metrics.config import BprwConfig
from prolip.metrics.prompts import unweighted_classifiers
from prolip.metrics.zero_shot import Classifier
from prolip.pretrained.model import Model

EVEN, WITH_VAR = "even prompts", "with class variances"
NEEDS_VARIANCES = "filters and re-weighting of prompts, accuracy with class variances"


class LabelledSet(NamedTuple):
    """Embedded images of a set, with their labels."""

    images: Gaussian
    """[N, D]"""
    labels: Tensor
    """i64 [N]"""
    classnames: list[str]


def run_imagenet(model: Model, options: ImagenetOptions, cache: TaskCache) -> SuiteResult:
    """Evaluate every set whose data exist.

    Raises:
        UserError: no set could be evaluated.
    """

    def opened(name: str) -> DataSet:
        return open_dataset(find_folder(options.data, (f"wds_{name}_test",)), cache.made, options.store)

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
    """Evaluate all methods on a set; `voters` embeds the set whose labelled images re-weight prompts.

    Raises:
        UserError: there are no class names, no templates, or too few images.
    """
    if not model.has_csd:
        classifier = build_classifier(model, data.classnames, templates)
        return TaskResult(rows=method_rows(title, EVEN, classifier, data, with_var=False, main=True))
    total = len(templates) * len(data.classnames)
    with tqdm(total=total, desc=f"{title}, prompts", unit="prompt", file=sys.stderr, leave=False) as bar:
        prompts = embed_prompts(model, data.classnames, templates, on_progress=bar.update)
    methods = unweighted_classifiers(prompts)
    even = methods.pop("even weights")
    methods["BPRW, nearest"] = reweight_prompts(prompts, data.images, options.nearest).as_classifier()
    rows = method_rows(title, EVEN, even, data, with_var=True, main=True)
    for method, classifier in methods.items():
        rows += method_rows(title, method, classifier, data, with_var=True, over=even)
    try:
        labelled = voters()
        voting, scored = voters_and_scored(labelled, data, options.few_shot, title_of(options.voters))
    except (UserError, DataError, OSError) as error:
        return TaskResult(rows=rows, notes=[f"{title}: few-shot re-weighting: {sentence(error)}"])
    weights = reweight_prompts(prompts, voting.images, options.few_shot, labels=voting.labels).as_classifier()
    if labelled is data:
        rows += method_rows(title, f"{EVEN}, without the few shots", even, scored, with_var=True)
    return TaskResult(rows=rows + method_rows(title, "BPRW, few-shot", weights, scored, with_var=True, over=even))


def method_rows(
    task: str,
    method: str,
    classifier: Classifier,
    data: LabelledSet,
    *,
    with_var: bool,
    main: bool = False,
    over: Classifier | None = None,
) -> list[Row]:
    """Accuracy of a classifier by means and, `with_var`, with class variances, and its gain over another classifier.

    Args:
        task: name of the set, for the rows.
        method: name of the classifier, for the rows.
        classifier: C classes.
        data: N images.
        with_var: whether the classes have variances.
        main: whether the accuracy by means is the set's main figure.
        over: another classifier of the same classes, measured on the same images.
    """

    def hits(one: Classifier) -> dict[str, Tensor]:
        found = answer(data.images, one, with_var=with_var)
        kinds = {"": found.best, f", {WITH_VAR}": found.best_with_var}
        return {suffix: (best[:, 0] == data.labels).double() for suffix, best in kinds.items() if best is not None}

    mine, theirs = hits(classifier), {} if over is None else hits(over)
    return [
        *(row_of_items(task, f"accuracy, {method}{end}", right, main=main and not end) for end, right in mine.items()),
        *(row_of_items(task, f"gain of {method} over {EVEN}{end}", mine[end] - other) for end, other in theirs.items()),
    ]


def voters_and_scored(
    labelled: LabelledSet, data: LabelledSet, config: BprwConfig, title: str
) -> tuple[LabelledSet, LabelledSet]:
    """The images that vote, with labels in the set's classes (-1 for other classes), and the images to score.

    Args:
        labelled: images that can vote. If this is `data` itself, the images that vote are not scored.
        data: the set to score.
        config: how many images vote for a class.
        title: name of the labelled set, for errors.

    Raises:
        UserError: a class of the set is not exactly one class of the labelled set; or every image votes.
    """
    if labelled is not data:
        labels = relabelled(labelled, data.classnames, title)
        return LabelledSet(labelled.images, labels, data.classnames), data
    voting = labelled_images(data.labels, len(data.classnames), config.num_neighbors)
    scored = torch.ones(len(data.labels), dtype=torch.bool)
    scored[voting[voting >= 0]] = False
    if not bool(scored.any()):
        raise UserError(f"few_shot.num_neighbors is {config.num_neighbors}: no image is left to score")
    return data, LabelledSet(data.images.rows(scored), data.labels[scored], data.classnames)


def relabelled(labelled: LabelledSet, classnames: Sequence[str], title: str) -> Tensor:
    """The labels of a set as indices into `classnames`, i64 [N]; -1 for other classes.

    Raises:
        UserError: a name is not exactly one class of the labelled set.
    """
    wrong = [name for name in classnames if labelled.classnames.count(name) != 1]
    if wrong and list(classnames) != labelled.classnames:
        raise UserError(f"{wrong[0]!r} is not exactly one class of {title}")
    places = {name: place for place, name in enumerate(classnames)}
    return torch.tensor([places.get(name, -1) for name in labelled.classnames])[labelled.labels]
