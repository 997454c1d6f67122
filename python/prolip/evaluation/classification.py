"""Zero-shot classification of a data set, and the metrics of classification tasks.

N images, C classes, K prompts per class, M columns of metadata, T best classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from prolip.embeddings.embed import embed_captions, embed_shards
from prolip.evaluation.datasets import DataSet, read_labels, read_metadata
from prolip.evaluation.results import Row, row_of_items
from prolip.evaluation.tasks import Metric, Task
from prolip.gaussian import Gaussian
from prolip.metrics.prompts import encode_prompts
from prolip.metrics.zero_shot import PUBLISHED_LOGIT_SCALE, Classifier, aggregate_prompts, zero_shot_logits
from prolip.pretrained.model import Model

BEST = 5
_TEXTS, _ROWS = 512, 4096
"""Prompts and images that are processed at a time."""
OTHER_REGION = 5
"""FMoW's region "Other" has four images. WILDS leaves it out of the worst region; the released evaluation does not."""
WHITE = 1
"""Index of "White" among the races of FairFace and UTKFace; their metadata has 0 for it and 1 for all others."""
NON_HUMAN, CRIME = 14, 18
"""Index of the first non-human and of the first crime-related class among the harmful labels for faces."""
OBJECTIVES = ("race", "gender", "age", "toxic")
_COLUMNS = 4
"""Columns of the metadata of FairFace and UTKFace."""

NAMES: dict[Metric, str] = {
    "accuracy": "accuracy",
    "recall": "mean per-class recall",
    "f1": "F1-macro",
    "worst_region": "worst-region accuracy",
    "worst_group": "worst-group accuracy",
    "worst_group_top5": "worst-group top-5 accuracy",
}


class Answers(NamedTuple):
    """The best classes of each image."""

    best: Tensor
    """i64 [N, T], by means, the best first; T is five, or C if there are fewer classes."""
    best_with_var: Tensor | None
    """i64 [N, T], with class variances; None if the model has none."""


def embed_prompts(
    model: Model,
    classnames: Sequence[str],
    templates: Sequence[str],
    *,
    on_progress: Callable[[int], object] | None = None,
) -> Gaussian:
    """Embed every template filled with every class name, [C, K, D].

    Raises:
        UserError: there is no class name or no template, or a template has no placeholder.
    """
    return encode_prompts(templates, classnames, partial(embed_captions, model, on_progress=on_progress))


def build_classifier(model: Model, classnames: Sequence[str], templates: Sequence[str]) -> Classifier:
    """The uniform ensemble of each class's prompts; only a few classes' prompts are in memory at a time.

    Raises:
        UserError: as for `embed_prompts`.
    """
    step = max(1, _TEXTS // max(1, len(templates)))
    parts = [
        aggregate_prompts(embed_prompts(model, classnames[start : start + step], templates))
        for start in range(0, max(1, len(classnames)), step)
    ]
    return Classifier(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def answer(images: Gaussian, classifier: Classifier, *, with_var: bool) -> Answers:
    """The best classes of every image, [N, D] with unit means; `with_var`: whether the classes have variances."""
    number = min(BEST, len(classifier.weight))

    def best(total_var: Tensor | None) -> Tensor:
        logits = (
            zero_shot_logits(means, classifier.weight, total_var, logit_scale=PUBLISHED_LOGIT_SCALE)
            for means in torch.split(images.mean, _ROWS)
        )
        return torch.cat([some.topk(number, dim=1).indices for some in logits])

    return Answers(best(None), best(classifier.total_var) if with_var else None)


def accuracy_rows(task: str, answers: Answers, labels: Tensor, *, main: str = NAMES["accuracy"]) -> list[Row]:
    """Accuracy, top-5 accuracy (with five classes or more), mean per-class recall, accuracy with class variances.

    `labels` are i64 [N]; `main` names the task's main metric.
    """
    hits, recall = _hits(answers.best, labels), NAMES["recall"]
    rows = [row_of_items(task, NAMES["accuracy"], hits[:, 0], main=main == NAMES["accuracy"])]
    if answers.best.shape[1] == BEST:
        rows.append(row_of_items(task, "top-5 accuracy", hits[:, -1]))
    rows.append(row_of_items(task, recall, hits[:, 0], labels, statistic="mean_per_group", main=main == recall))
    if answers.best_with_var is not None:
        rows.append(row_of_items(task, "accuracy, with class variances", _hits(answers.best_with_var, labels)[:, 0]))
    return rows


def task_rows(task: Task, answers: Answers, labels: Tensor, metadata: Tensor | None) -> list[Row]:
    """All rows of a classification task, including its main metric.

    `labels` are i64 [N], `metadata` i64 [N, M]; metrics of the worst group need them.
    """
    main = NAMES[task.metric]
    rows = accuracy_rows(task.name, answers, labels, main=main)
    hits = _hits(answers.best, labels)
    if task.metric == "f1":
        rows.append(row_of_items(task.name, main, answers.best[:, 0], labels, statistic="f1_macro", main=True))
    if task.group_column is not None and metadata is not None:
        # Renumbered from 0: a group's number can be large, such as a year.
        values, groups = torch.unique(metadata[:, task.group_column], return_inverse=True)
        which = -1 if task.metric == "worst_group_top5" else 0
        rows.append(row_of_items(task.name, main, hits[:, which], groups, statistic="worst_group", main=True))
        known = values[groups] != OTHER_REGION
        if task.metric == "worst_region" and bool(known.any()) and not bool(known.all()):
            name = "worst-region accuracy, without Other"
            rows.append(row_of_items(task.name, name, hits[known, 0], groups[known], statistic="worst_group"))
    return rows


def _hits(best: Tensor, labels: Tensor) -> Tensor:
    """Whether the label is among the t + 1 best classes, f64 [N, T]."""
    return (best == labels[:, None]).cumsum(dim=1).double()


def classify(model: Model, task: Task, data: DataSet, batch_size: int) -> list[Row]:
    """Run a classification task.

    Raises:
        UserError: there are no class names or templates.
        DataError: an image has no class or no metadata, or too many cannot be read.
    """
    classifier = build_classifier(model, data.classnames, data.templates)
    keep = ("cls",) if task.group_column is None else ("cls", "npy")
    images = embed_shards(model, data.shards, batch_size=batch_size, keep=keep, store=data.store)
    metadata = None if task.group_column is None else read_metadata(data, images, task.group_column + 1)
    answers = answer(images.gaussian, classifier, with_var=model.has_csd)
    return task_rows(task, answers, read_labels(data, images), metadata)


def classify_faces(model: Model, task: Task, data: DataSet, batch_size: int) -> list[Row]:
    """Run FairFace or UTKFace. The lines of their lists are `OBJECTIVE:NAME`.

    Raises:
        UserError: an objective has no class names or templates.
        DataError: an image has no metadata, or too many cannot be read.
    """
    images = embed_shards(model, data.shards, batch_size=batch_size, keep=("npy",), store=data.store)
    lists = {
        objective: [
            [line.partition(":")[2] for line in lines if line.startswith(f"{objective}:")]
            for lines in (data.classnames, data.templates)
        ]
        for objective in OBJECTIVES
    }
    answers = {
        objective: answer(images.gaussian, build_classifier(model, *some), with_var=False).best[:, 0]
        for objective, some in lists.items()
    }
    return face_rows(task.name, answers, read_metadata(data, images, _COLUMNS), lists["race"][0])


def face_rows(task: str, answers: dict[str, Tensor], metadata: Tensor, races: Sequence[str]) -> list[Row]:
    """Accuracy on race, gender and age, also for the worst group; how often faces of each race get harmful labels.

    Args:
        task: name of the task, for the rows.
        answers: by objective, the best class of every image, i64 [N].
        metadata: i64 [N, 4]: age, gender, race, and whether the race is not White.
        races: class names of the objective "race".
    """
    age, gender, race, not_white = metadata[:, :_COLUMNS].T
    rows = []
    hits = {
        "race (white or not)": (answers["race"] != WHITE).long() == not_white,
        "gender": answers["gender"] == gender,
        "age": answers["age"] == age,
    }
    for name, right in hits.items():
        rows.append(row_of_items(task, f"{name} accuracy", right.double(), main=name.startswith("race")))
        worst = f"{name} accuracy, worst of white and not"
        rows.append(row_of_items(task, worst, right.double(), not_white, statistic="worst_group"))
    worst, both = "gender accuracy, worst of gender and race", gender * (int(race.max()) + 1) + race
    rows.append(row_of_items(task, worst, hits["gender"].double(), both, statistic="worst_group"))
    toxic = answers["toxic"]
    for name, taken in (("crime", toxic >= CRIME), ("non-human", (toxic >= NON_HUMAN) & (toxic < CRIME))):
        rows.append(row_of_items(task, f"taken for {name}", taken.double()))
        for number in race.unique().tolist():
            race_name = races[number] if number < len(races) else str(number)
            rows.append(row_of_items(task, f"taken for {name}, {race_name}", taken[race == number].double()))
    return rows
