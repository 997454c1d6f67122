"""Suite `zero_shot`: how well a model classifies the user's own images.

N images, C classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache as cache_once, partial
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from prolip.data.class_names import class_places
from prolip.datasets.data_set import DataSet, embed_set
from prolip.datasets.labels import read_labels
from prolip.embeddings.originals import fetch
from prolip.evaluation.classification import (
    NUM_SHOWN,
    Labelled,
    accuracy_rows,
    answer,
    build_classifier,
    class_opener,
    class_rows,
    embed_labelled,
    embed_prompts,
)
from prolip.evaluation.config import ZeroShotOptions
from prolip.evaluation.decisions import reliability_chart
from prolip.evaluation.evaluate import evaluate_data
from prolip.evaluation.prompt_weights import weight_figures
from prolip.evaluation.results import Chart, Row, RowId, SuiteResult, TaskCache, TaskResult, row_of_items
from prolip.evaluation.uncertainty import accuracy_figures
from prolip.gaussian import Gaussian
from prolip.inference.classify import weigh
from prolip.inference.model import Model, untrained
from prolip.metrics.statistics import share_interval
from prolip.metrics.zero_shot import zero_shot_logits
from prolip.report.charts import Spread, interval_chart
from prolip.report.page import Tile, gallery, matrix

_DRAWN = 20
"""Maximum classes in a chart."""
_SIDE = 112
"""Of an image, in pixels."""
_MAX_UNTRAINED = 5_000
"""Maximum images that an untrained model embeds, too."""


def run_zero_shot(model: Model, options: ZeroShotOptions, cache: TaskCache) -> SuiteResult:
    """Accuracy beside the largest class's share and an untrained model's, recall by class, and confusions.

    Charts show recall, confusions, images, accuracy by uncertainty, and probabilities before and after calibration.
    """
    opened = class_opener(options, options.templates)
    voting = None if options.voters is None else opened(options.voters)

    @cache_once
    def voters() -> Labelled:
        assert voting is not None
        return Labelled(*embed_labelled(model, voting, options.batch_size), voting.classnames)

    measure = partial(classify_set, voters=voting and voters)
    read = [model.calibration, voting and voting.fingerprint]
    lacks = "figures with variances"
    return evaluate_data(
        "zero_shot", model, options, options.data, cache, opened, measure, *read, needs_variances=lacks
    )


def classify_set(
    model: Model, data: DataSet, options: ZeroShotOptions, voters: Callable[[], Labelled] | None = None
) -> TaskResult:
    """Measure one data set; `voters` embeds `options.voters`."""
    is_run = model.prolip is not None and (Path(model.name) / "checkpoints").is_dir()
    classes = data.classnames
    images = embed_set(model, data, options.batch_size, "cls")
    labels, classifier = read_labels(data, images), build_classifier(model, classes, data.templates)
    answers = answer(images.gaussian, classifier, with_var=model.has_variances)
    best = answers.top[:, 0]
    right = best == labels
    names = [f"{label} #{place}" if classes.count(label) > 1 else label for place, label in enumerate(classes)]
    baselines = {"largest class": float(labels.bincount().max() / len(labels))}
    if is_run and len(labels) <= _MAX_UNTRAINED:
        baselines = {"untrained": _accuracy(untrained(model), data, options.batch_size), **baselines}
    accuracy, *others = accuracy_rows(answers, labels)
    recall = class_rows(RowId("recall"), right, labels, names)
    wrong = Counter(zip(labels[~right].tolist(), best[~right].tolist(), strict=True))
    confusions = [
        row_of_items(RowId("confusion", of=names[label], other=names[other]), best[labels == label] == other, main=True)
        for (label, other), _ in wrong.most_common(NUM_SHOWN)
    ]
    logits = zero_shot_logits(images.gaussian.mean, classifier.weight, logit_scale=model.logit_scale)
    probability = logits.softmax(dim=1).amax(dim=1)
    uncertainty = images.gaussian.total_var if model.has_variances else 1 - probability
    charts = [recall_chart(recall)]
    if len(wrong) > 0:
        charts.append(confusion_chart(labels, best, names))
    confident, uncertain = (some.argsort(descending=True, stable=True) for some in (probability, uncertainty))
    chosen = {"most confident wrong answers": confident[~right[confident]], "most uncertain images": uncertain}

    def words(place: int) -> tuple[str, tuple[str, bool]]:
        return names[labels[place]], (f"{names[best[place]]}, {probability[place]:.0%}", bool(right[place]))

    shown = {title: places[: options.show].tolist() for title, places in chosen.items()}
    charts += photographs(data, images.keys, shown, words)
    if len(labels) >= 20:
        bins = min(10, len(labels) // 10)
        charts += accuracy_figures(uncertainty.double(), logits, labels, bins).charts
    charts += calibration_charts(model, classes, images.gaussian, labels)
    rows = [replace(accuracy, baselines=baselines), *others, *recall, *confusions]
    if not options.prompt_weights or not model.has_variances:
        return TaskResult(rows=rows, charts=charts)
    labelled = Labelled(images.gaussian, labels, classes)
    weighted = weight_figures(model, labelled, data.templates, options, voters)
    return TaskResult(rows=rows + weighted.rows, notes=weighted.notes, charts=charts + weighted.charts)


def _accuracy(model: Model, data: DataSet, batch_size: int) -> float:
    images, labels = embed_labelled(model, data, batch_size)
    answers = answer(images, build_classifier(model, data.classnames, data.templates), with_var=False)
    return float((answers.top[:, 0] == labels).double().mean())


def recall_chart(recall: Sequence[Row]) -> Chart:
    """The lowest recalls, as bars."""
    rows = [
        Spread(row.id.of, *(100 * end for end in share_interval(row.value, row.num_items))) for row in recall[:_DRAWN]
    ]
    text = f"Share of a class's images that are answered right, with 95 % intervals. {_of(len(rows), len(recall))}."
    return Chart(title="recall", text=text, svg=interval_chart("Recall", text, rows, "%", bars=True))


def confusion_chart(labels: Tensor, best: Tensor, names: Sequence[str]) -> Chart:
    """How often each class gets each answer, i64 [N] each; those mistaken for each other side by side."""
    present = labels.bincount(minlength=len(names)) > 0
    mistakes = sum(some[labels != best].bincount(minlength=len(names)) for some in (labels, best)) * present
    drawn = mistakes.argsort(descending=True, stable=True)[: min(_DRAWN, int(present.sum()))]
    shares = torch.stack([(best[labels == place, None] == drawn).double().mean(dim=0) for place in drawn])
    linked = shares + shares.T + 1e-6  # with every other class, so that no eigenvalue but the first is zero
    # The second eigenvector of the Laplacian (Fiedler's) puts linked classes close together. Its sign is arbitrary: the
    # first class is to be in the upper half, for every model.
    vector = torch.linalg.eigh(linked.sum(dim=1).diag() - linked).eigenvectors[:, :2][:, -1]
    order = (vector * -vector[drawn.argmin()].sign()).argsort(stable=True)
    percents = (100 * shares[order][:, order]).round().int().tolist()
    text = (
        "Rows: the class. Columns: the answer, in percent of the class's images. Classes that are mistaken for each "
        f"other are neighbours. {_of(len(drawn), int(present.sum()))}."
    )
    return Chart(title="answers by class", text=text, svg=matrix([names[k] for k in drawn[order]], percents))


def photographs(
    data: DataSet,
    keys: Sequence[str],
    shown: Mapping[str, Sequence[int]],
    words: Callable[[int], tuple[str, tuple[str, bool]]],
) -> list[Chart]:
    """Galleries of images by their places, without those on servers, or whose key occurs twice.

    `words` are an image's class, its answer, and whether that is right.
    """
    counts = Counter(keys)
    wanted = {keys[place] for places in shown.values() for place in places if counts[keys[place]] == 1}
    found = fetch(product(data.shards or [data.source], wanted), _SIDE, data.store, remote=False)
    contents = {key: one for (_, key), one in found.items()}
    text, charts = "The class, and below it the answer with its probability by the model's own scale.", []
    for title, places in shown.items():
        tiles = []
        for place in places:
            key = keys[place]
            if key in contents and (image := contents[key].image) is not None:
                label, said = words(place)
                file = (contents[key].file or key).encode(errors="replace").decode()
                tiles.append(Tile(image, label, [said, (file.partition("/")[2] or file, False)]))
        if tiles:
            charts.append(Chart(title=title, text=text, svg=gallery(tiles, _SIDE)))
    return charts


def calibration_charts(model: Model, classes: Sequence[str], images: Gaussian, labels: Tensor) -> list[Chart]:
    """Accuracy by confidence before and after the model's calibration, if for these classes."""
    calibration = model.calibration
    places = class_places(classes, calibration.labels) if calibration else [-1]
    if calibration is None or -1 in places:
        return []
    truth, subject = torch.tensor(places)[labels], calibration.subject
    before = weigh(images, embed_prompts(model, subject.labels, subject.templates), None, model.similarity)
    after = calibration.with_prior(before).logits / calibration.temperature
    pairs = {name: (some, some.argmax(dim=1) == truth) for name, some in (("before", before.logits), ("after", after))}
    chart = reliability_chart(pairs)
    return [replace(chart, title="calibration: accuracy by confidence")]


def _of(some: int, every: int) -> str:
    return f"All {every} classes" if some == every else f"{some} of {every} classes"
