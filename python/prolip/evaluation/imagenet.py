"""Suite `imagenet`: even, filtered and re-weighted (BPRW) prompts on ImageNet and its shifts, or on similar data sets.

N images, C classes, D dimensions.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from prolip.data import DataError
from prolip.embeddings.embed import embed_shards
from prolip.errors import UserError, sentence
from prolip.evaluation.classification import answer, build_classifier, embed_prompts
from prolip.evaluation.config import SETS, ImagenetOptions
from prolip.evaluation.each_set import evaluate_sets
from prolip.evaluation.folders import TaskFolder, find_folder, open_folder, read_labels
from prolip.evaluation.results import Row, SuiteResult, TaskCache, TaskResult, row_of_items
from prolip.evaluation.templates import imagenet_templates
from prolip.gaussian import Gaussian
from prolip.metrics.bprw import labelled_images, reweight_prompts
from prolip.metrics.config import BprwConfig
from prolip.metrics.prompts import SmallestInClass, WithinSpread, filter_prompts
from prolip.metrics.zero_shot import Classifier, aggregate_prompts
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
    source = _Source(model, options, cache.folder.with_name("data"))

    def evaluate(title: str, name: str, fingerprint: str) -> TaskResult:
        folder = source.folder(name)
        settings = {
            "model": fingerprint,
            "data": folder.fingerprint,
            "templates": source.templates(folder),
            "nearest": dataclasses.asdict(options.nearest),
            "few_shot": dataclasses.asdict(options.few_shot),
            "voters": source.voters(),
        }
        return cache.get_or_run(name, settings, partial(evaluate_set, source, name))

    return evaluate_sets("imagenet", model, {title_of(name): name for name in options.sets}, evaluate, NEEDS_VARIANCES)


def title_of(name: str) -> str:
    """Title of a set in results."""
    return SETS.get(name, name)


class _Source:
    """Opens and embeds the sets; the set of the voters is embedded once at most."""

    def __init__(self, model: Model, options: ImagenetOptions, fetched: Path) -> None:
        self.model, self.options = model, options
        self._fetched = fetched
        self._labelled: LabelledSet | None = None

    def folder(self, name: str) -> TaskFolder:
        """Open a set's folder."""
        return open_folder(find_folder(self.options.data, (f"wds_{name}_test",), self._fetched), self.options.store)

    def voters(self) -> str | None:
        """Fingerprint of the voters' folder; None if it is missing or damaged, which few-shot re-weighting reports."""
        try:
            return self.folder(self.options.voters).fingerprint
        except (UserError, OSError):
            return None

    def templates(self, folder: TaskFolder) -> list[str]:
        """The templates chosen in the options."""
        chosen = self.options.templates
        return folder.templates if chosen == "folder" else imagenet_templates(chosen)

    def embedded(self, name: str) -> LabelledSet:
        """Embed a set's images."""
        if name == self.options.voters and self._labelled is not None:
            return self._labelled
        folder = self.folder(name)
        with tqdm(desc=f"{title_of(name)}, images", unit="image", file=sys.stderr, leave=False) as bar:
            embedded = embed_shards(
                self.model,
                folder.shards,
                batch_size=self.options.batch_size,
                keep=("cls",),
                store=folder.store,
                on_progress=bar.update,
            )
        found = LabelledSet(embedded.gaussian, read_labels(folder, embedded), folder.classnames)
        if name == self.options.voters:
            self._labelled = found
        return found


def evaluate_set(source: _Source, name: str) -> TaskResult:
    """Evaluate all methods on a set.

    Raises:
        UserError: there are no class names, no templates, or too few images.
        DataError: an image has no class, or too many cannot be read.
    """
    model, options, folder = source.model, source.options, source.folder(name)
    templates, title = source.templates(folder), title_of(name)
    data = source.embedded(name)
    if not model.has_csd:
        classifier = build_classifier(model, folder.classnames, templates)
        return TaskResult(rows=method_rows(title, EVEN, classifier, data, with_var=False, main=True))
    total = len(templates) * len(folder.classnames)
    with tqdm(total=total, desc=f"{title}, prompts", unit="prompt", file=sys.stderr, leave=False) as bar:
        prompts = embed_prompts(model, folder.classnames, templates, on_progress=bar.update)
    even = aggregate_prompts(prompts)
    methods = {
        "prompts up to the mean uncertainty": filter_prompts(prompts, WithinSpread(num_std=0.0)),
        "the more certain half of the prompts": filter_prompts(
            prompts, SmallestInClass(count=max(1, len(templates) // 2))
        ),
        "BPRW, nearest": reweight_prompts(prompts, data.images, options.nearest).as_classifier(),
    }
    rows = method_rows(title, EVEN, even, data, with_var=True, main=True)
    for method, classifier in methods.items():
        rows += method_rows(title, method, classifier, data, with_var=True, over=even)
    notes = []
    try:
        labelled = source.embedded(options.voters)
        voters, scored = voters_and_scored(labelled, data, options.few_shot, title_of(options.voters))
    except (UserError, DataError, OSError) as error:
        notes.append(f"{title}: few-shot re-weighting: {sentence(error)}")
    else:
        weights = reweight_prompts(prompts, voters.images, options.few_shot, labels=voters.labels).as_classifier()
        if name == options.voters:
            rows += method_rows(title, f"{EVEN}, without the few shots", even, scored, with_var=True)
        rows += method_rows(title, "BPRW, few-shot", weights, scored, with_var=True, over=even)
    return TaskResult(rows=rows, notes=notes)


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
    if list(classnames) == labelled.classnames:
        return labelled.labels
    wrong = [name for name in classnames if labelled.classnames.count(name) != 1]
    if wrong:
        raise UserError(f"{wrong[0]!r} is not exactly one class of {title}")
    places = torch.full((len(labelled.classnames),), -1)
    for place, name in enumerate(classnames):
        places[labelled.classnames.index(name)] = place
    return places[labelled.labels]
