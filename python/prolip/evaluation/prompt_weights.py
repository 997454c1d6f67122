"""Ways to weight a class's prompts, beside even weights: filters, and re-weighting by images (BPRW).

N images, C classes, K prompts per class, D dimensions.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from tqdm import tqdm

from prolip.data import DataError
from prolip.errors import UserError, check, sentence
from prolip.evaluation.classification import Labelled, answer, embed_prompts
from prolip.evaluation.config import ZeroShotOptions
from prolip.evaluation.results import Chart, Row, RowId, TaskResult, difference, row_of_items
from prolip.inference.model import Model
from prolip.metrics.bprw import labelled_images, reweight_prompts
from prolip.metrics.prompts import unweighted_classifiers
from prolip.metrics.zero_shot import Classifier
from prolip.report.charts import weight_chart


def weight_figures(
    model: Model,
    data: Labelled,
    templates: Sequence[str],
    options: ZeroShotOptions,
    voters: Callable[[], Labelled] | None,
) -> TaskResult:
    """Accuracy with each of `options.prompt_weights`, and its difference from even weights on the same images.

    `voters` embeds the images that vote for few-shot weights; None for the set's own, which are then not scored.
    """
    total = len(templates) * len(data.classnames)
    with tqdm(total=total, desc="prompts", unit="prompt", file=sys.stderr, leave=False) as bar:
        prompts = embed_prompts(model, data.classnames, templates, on_progress=bar.update)
    classifiers = unweighted_classifiers(prompts, options.filters, (data.images.mean, data.labels))
    even = _hits(classifiers.pop("even weights"), data)
    if "filters" not in options.prompt_weights:
        classifiers = {}
    result = TaskResult(rows=[])
    if "bprw" in options.prompt_weights:
        found = reweight_prompts(prompts, data.images, options.bprw)
        classifiers["bprw"] = found.as_classifier()
        text = "Weights by the images nearest to each class. Dots: means over the classes; bars: the middle 80 %."
        drawn = weight_chart("Weight of each prompt", templates, found.weights)
        result.charts.append(Chart(title="weight of each prompt", text=text, svg=drawn))
    for method, classifier in classifiers.items():
        result.rows.extend(_rows(method, _hits(classifier, data), "", even))
    if "few_shot" not in options.prompt_weights:
        return result
    try:
        voting = data if voters is None else voters()
        labels, scored = voting_labels(voting, data, options.few_shot.num_neighbors)
        found = reweight_prompts(prompts, voting.images, options.few_shot, labels=labels)
    except (UserError, DataError, OSError) as error:
        result.notes.append(f"few-shot weights: {sentence(error)}")
        return result
    hits = _hits(found.as_classifier(), data)
    if voting is not data:
        result.rows.extend(_rows("few_shot", hits, "", even))
        return result
    few, rest = ({measure: items[scored] for measure, items in some.items()} for some in (hits, even))
    result.rows.extend(_rows("even_without_voters", rest))
    result.rows.extend(_rows("few_shot", few, "even_without_voters", rest))
    result.rows.extend(_rows("few_shot_with_voters", hits, "", even))
    return result


def voting_labels(voting: Labelled, data: Labelled, count: int) -> tuple[Tensor, Tensor]:
    """The labels of images that can vote, in the classes of `data` (-1 for others), and which of `data` are scored.

    If both are the same, the first `count` images of each class vote, and are not scored.
    """
    scored = torch.ones(len(data.labels), dtype=torch.bool)
    if voting is data:
        places = labelled_images(data.labels, len(data.classnames), count)
        scored[places[places >= 0]] = False
        check(bool(scored.any()), "few_shot.num_neighbors", "must leave images to score", count)
        return data.labels, scored
    wrong = [name for name in data.classnames if voting.classnames.count(name) != 1]
    if wrong and data.classnames != voting.classnames:
        raise UserError("voters", "must have each class exactly once", f"{wrong[0]!r}")
    of_name = {name: place for place, name in enumerate(data.classnames)}
    return torch.tensor([of_name.get(name, -1) for name in voting.classnames])[voting.labels], scored


def _hits(classifier: Classifier, data: Labelled) -> dict[str, Tensor]:
    """Right images, bool [N], by means and with class variances."""
    found = answer(data.images, classifier, with_var=True)
    best = {"accuracy": found.top, "accuracy_with_variances": found.top_with_var}
    return {measure: some[:, 0] == data.labels for measure, some in best.items() if some is not None}


def _rows(
    method: str, hits: Mapping[str, Tensor], minus: str = "", before: Mapping[str, Tensor] | None = None
) -> list[Row]:
    """A method's accuracy from its hits, and its difference from that of other hits on the same images."""
    rows = []
    for measure, items in hits.items():
        main = measure == "accuracy"
        rows.append(row := row_of_items(RowId(measure, by=method), items, main=main))
        if before is not None:
            first = row_of_items(replace(row.id, by=minus), before[measure])
            rows.append(difference(first, row, main=main))
    return rows
