"""Zero-shot classification of a data set.

N images, C classes, K prompts per class, D dimensions, T best classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from prolip.datasets.data_set import DataSet, embed_set, open_classes
from prolip.datasets.labels import read_labels
from prolip.evaluation.config import ClassSuiteOptions
from prolip.evaluation.results import Row, RowId, row_of_items
from prolip.evaluation.stored import open_data
from prolip.gaussian import Gaussian
from prolip.inference.model import Model
from prolip.metrics.prompts import encode_prompts
from prolip.metrics.zero_shot import PUBLISHED_LOGIT_SCALE, Classifier, aggregate_prompts, zero_shot_logits

NUM_TOP = 5
NUM_SHOWN = 10
"""Maximum classes, or confusions, among the main figures."""
_TEXTS, _ROWS = 512, 4096
"""Prompts and images processed at a time."""


def embed_labelled(model: Model, data: DataSet, batch_size: int) -> tuple[Gaussian, Tensor]:
    """Images [N, D], and their classes, i64 [N]."""
    images = embed_set(model, data, batch_size, "cls")
    return images.gaussian, read_labels(data, images)


def class_opener(options: ClassSuiteOptions, templates: Sequence[str]) -> Callable[[str], DataSet]:
    """`open_classes` with a suite's options."""
    return partial(
        open_classes,
        store=options.store,
        templates=templates,
        classnames=options.classnames,
        selection=options.selection,
        opened=open_data,
    )


class Labelled(NamedTuple):
    """Embedded images with their labels."""

    images: Gaussian
    """[N, D]"""
    labels: Tensor
    """i64 [N]"""
    classnames: list[str]


class Answers(NamedTuple):
    """Each image's best classes."""

    top: Tensor
    """i64 [N, T], by means, the best first; T is five, or C if smaller."""
    top_with_var: Tensor | None
    """i64 [N, T], with class variances; None without any."""


def embed_prompts(
    model: Model,
    classnames: Sequence[str],
    templates: Sequence[str],
    *,
    on_progress: Callable[[int], object] | None = None,
) -> Gaussian:
    """Every template filled with every class name, [C, K, D]."""
    return encode_prompts(templates, classnames, replace(model.encoder, on_progress=on_progress).embed_captions)


def build_classifier(model: Model, classnames: Sequence[str], templates: Sequence[str]) -> Classifier:
    """The uniform ensemble of each class's prompts; only a few classes' prompts are in memory at a time."""
    step = max(1, _TEXTS // max(1, len(templates)))
    blocks = [
        aggregate_prompts(embed_prompts(model, classnames[start : start + step], templates))
        for start in range(0, max(1, len(classnames)), step)
    ]
    return Classifier(*(torch.cat(tensors) for tensors in zip(*blocks, strict=True)))


def answer(images: Gaussian, classifier: Classifier, *, with_var: bool) -> Answers:
    """Of every image, [N, D] with unit means, also with class variances if asked."""
    number = min(NUM_TOP, len(classifier.weight))

    def best(total_var: Tensor | None) -> Tensor:
        logits = (
            zero_shot_logits(means, classifier.weight, total_var, logit_scale=PUBLISHED_LOGIT_SCALE)
            for means in torch.split(images.mean, _ROWS)
        )
        return torch.cat([some.topk(number, dim=1).indices for some in logits])

    return Answers(best(None), best(classifier.total_var) if with_var else None)


def accuracy_rows(answers: Answers, labels: Tensor, *, main: str = "accuracy") -> list[Row]:
    """Accuracy, top-5 accuracy (with five classes or more), mean per-class recall, accuracy with class variances.

    `labels` are i64 [N]; `main` is the main measure.
    """
    hits = hits_of(answers.top, labels)
    rows = [row_of_items(RowId("accuracy"), hits[:, 0], main=main == "accuracy")]
    if answers.top.shape[1] == NUM_TOP:
        rows.append(row_of_items(RowId("top5_accuracy"), hits[:, -1]))
    recall = RowId("class_recall")
    rows.append(row_of_items(recall, hits[:, 0], labels, statistic="mean_per_group", main=main == recall.measure))
    if answers.top_with_var is not None:
        rows.append(row_of_items(RowId("accuracy_with_variances"), hits_of(answers.top_with_var, labels)[:, 0]))
    return rows


def class_rows(id: RowId, items: Tensor, labels: Tensor, names: Sequence[str]) -> list[Row]:
    """The mean of items [N] for each class that has some, the lowest first. Ten are main figures.

    Args:
        id: of all rows, but for the class.
        labels: i64 [N].
        names: of C classes, all different.
    """
    found = {names[place]: items[labels == place].double() for place in set(labels.tolist())}
    lowest = sorted(found, key=lambda name: float(found[name].mean()))
    return [row_of_items(replace(id, of=name), found[name], main=name in lowest[:NUM_SHOWN]) for name in lowest]


def hits_of(best: Tensor, labels: Tensor) -> Tensor:
    """Whether the label is among the t + 1 best classes, f64 [N, T]."""
    return (best == labels[:, None]).cumsum(dim=1).double()
