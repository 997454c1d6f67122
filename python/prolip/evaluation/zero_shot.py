"""Suite `zero_shot`: the user's own images, in one folder per class or in the published layout."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from prolip.embeddings.embed import embed_shards
from prolip.evaluation.classification import accuracy_rows, answer, build_classifier
from prolip.evaluation.config import ZeroShotOptions
from prolip.evaluation.datasets import DataSet, name_sources, open_classes, read_labels
from prolip.evaluation.results import SuiteResult, TaskCache, TaskResult
from prolip.evaluation.run import evaluate_sets
from prolip.gaussian import Gaussian
from prolip.pretrained.model import Model


def run_zero_shot(model: Model, options: ZeroShotOptions, cache: TaskCache) -> SuiteResult:
    """Classify the images of every data set.

    Raises:
        UserError: none could be evaluated.
    """

    def prepare(name: str, source: str) -> tuple[dict[str, Any], Callable[[], TaskResult]]:
        data = open_classes(source, cache.made, options.store, options.templates, options.classnames)
        settings = {"data": data.fingerprint, "lists": [data.classnames, data.templates]}
        return settings, partial(classify_set, model, name, data, options.batch_size)

    return evaluate_sets("zero_shot", model, name_sources(options.data), cache, prepare, "figures with variances")


def classify_set(model: Model, name: str, data: DataSet, batch_size: int) -> TaskResult:
    """Accuracy on a data set.

    Raises:
        DataError: an image has no class, or too many cannot be read.
    """
    classifier = build_classifier(model, data.classnames, data.templates)
    images, labels = embed_labelled(model, data, batch_size)
    return TaskResult(rows=accuracy_rows(name, answer(images, classifier, with_var=model.has_csd), labels))


def embed_labelled(model: Model, data: DataSet, batch_size: int) -> tuple[Gaussian, Tensor]:
    """Embed the images of a data set: Gaussians [N, D] and their classes, i64 [N].

    Raises:
        DataError: an image has no class, or too many cannot be read.
    """
    images = embed_shards(model, data.shards, batch_size=batch_size, keep=("cls",), store=data.store)
    return images.gaussian, read_labels(data, images)
