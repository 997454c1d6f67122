"""Suite `uncertainty`: uncertainty against accuracy and caption length, and after hiding, blurring or shortening.

N images, M captions, P patches, K kept patches, C classes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor

from prolip.embeddings.embed import embed_captions, embed_views
from prolip.errors import UserError
from prolip.evaluation.classification import build_classifier
from prolip.evaluation.config import UncertaintyOptions
from prolip.evaluation.datasets import (
    DataSet,
    caption_members,
    open_dataset,
    read_captions,
    read_labels,
)
from prolip.evaluation.results import Chart, Row, SuiteResult, TaskCache, TaskResult, row_of_items
from prolip.evaluation.run import evaluate_data
from prolip.gaussian import Gaussian
from prolip.metrics.uncertainty import count_words, more_uncertain, uncertainty_bins
from prolip.metrics.zero_shot import correct_within, zero_shot_logits
from prolip.pretrained.model import Model
from prolip.report.charts import Line, line_chart

_MIN_WORDS = 4
"""Minimum number of words of a caption to shorten."""


def run_uncertainty(model: Model, options: UncertaintyOptions, cache: TaskCache) -> SuiteResult:
    """Measure every data set.

    Raises:
        UserError: the model has no variances, or no data set could be measured.
    """
    if not model.has_variances:
        raise UserError(f"checkpoint: must have variances (got {model.name})")
    opened, measure = partial(open_dataset, store=options.store), partial(measure_set, model, options=options)
    chosen = [options.caption_key, options.num_bins, options.keep_ratio, options.blur, options.show]
    return evaluate_data("uncertainty", model, options.data, cache, opened, measure, {"options": chosen})


def measure_set(model: Model, name: str, data: DataSet, options: UncertaintyOptions) -> TaskResult:
    """Measure one data set."""
    views: dict[str, Callable[[Tensor], Gaussian]] = {
        "whole": model.encode_pixels,
        "blurred": lambda images: model.encode_pixels(blurred(images, options.blur)),
    }
    if model.prolip is not None:
        views["hidden"] = hide_patches(model, options.keep_ratio)
    labelled = bool(data.classnames and data.templates)
    keep = (*(("cls",) if labelled else ()), *(caption_members(options.caption_key) if options.caption_key else ()))
    embedded = embed_views(model, data.shards, views, batch_size=options.batch_size, keep=keep, store=data.store)
    keys, whole = embedded["whole"].keys, embedded["whole"].gaussian
    uncertainty = whole.total_var.double()
    rows = [row_of_items(name, "mean uncertainty of images", uncertainty, unit="number")]
    changes = {"blurred": "blurred", "hidden": f"{1 - options.keep_ratio:.0%} of its patches hidden"}
    for view in list(views)[1:]:
        more = more_uncertain(embedded[view].gaussian.total_var, whole.total_var)
        rows.append(row_of_items(name, f"an image is more uncertain {changes[view]}", more))
    order = uncertainty.argsort(stable=True).tolist()
    ends = [", ".join(keys[place] for place in some[: options.show]) for some in (order, order[::-1])]
    notes = [f"{name}: most certain are {ends[0]}; least certain {ends[1]}"] if options.show else []
    charts: list[Chart] = []
    if labelled:
        classifier = build_classifier(model, data.classnames, data.templates)
        logits = zero_shot_logits(whole.mean, classifier.weight, logit_scale=model.logit_scale)
        found = accuracy_figures(name, uncertainty, logits, read_labels(data, embedded["whole"]), options.num_bins)
        rows, charts = [*rows, *found.rows], found.charts
    if options.caption_key is not None:
        captions = list(chain.from_iterable(read_captions(data, embedded["whole"], options.caption_key).texts))
        rows += caption_rows(model, name, captions)
    return TaskResult(rows=rows, notes=notes, charts=charts)


def accuracy_figures(name: str, uncertainty: Tensor, logits: Tensor, labels: Tensor, num_bins: int) -> TaskResult:
    """Accuracy by uncertainty: rows and a chart.

    `uncertainty` is f64 [N], `labels` are i64 [N]. The zero-shot `logits`, [N, C], have the model's own scale: their
    softmax is the confidence.
    """
    correct = correct_within(logits, labels, 1).double()
    bins = uncertainty_bins(uncertainty, correct, num_bins)
    order = uncertainty.argsort(stable=True)
    confidence = logits.softmax(dim=1).amax(dim=1)
    right = correct.long()
    correlation, area = "correlation of accuracy with uncertainty, over bins", "area under risk and coverage"
    error = "expected calibration error"
    rows = [
        Row(task=name, metric=correlation, value=bins.pearson, num_items=len(labels), unit="number", main=True),
        row_of_items(name, area, uncertainty, right, statistic="risk_coverage", unit="number"),
        row_of_items(name, error, confidence, right, statistic="calibration_error", unit="number"),
        row_of_items(name, "accuracy", correct),
    ]
    for which, some in (("most", order[: bins.bin_size]), ("least", order[-bins.bin_size :])):
        metric, chosen = f"accuracy of the {which} certain 1/{num_bins}", torch.zeros_like(right).index_fill(0, some, 1)
        rows.append(row_of_items(name, metric, correct, chosen, statistic="mean_of_chosen"))
    text = f"Accuracy of {name} in {num_bins} bins of equally many images, from certain to uncertain."
    line = Line(name="accuracy", x=list(range(1, num_bins + 1)), y=bins.accuracy)
    drawn = line_chart(
        "Accuracy by uncertainty", text, [line], x_label="bin", y_scale="share", percent=True, marks=True
    )
    return TaskResult(rows=rows, charts=[Chart(title=f"{name}: accuracy by uncertainty", text=text, svg=drawn)])


def caption_rows(model: Model, name: str, captions: Sequence[str]) -> list[Row]:
    """Uncertainty of captions, its correlation with their length, and its change when words are removed."""
    uncertainty, words = embed_captions(model, captions).total_var.double(), count_words(captions)
    rows = [
        row_of_items(name, "mean uncertainty of captions", uncertainty, unit="number"),
        row_of_items(
            name,
            "rank correlation of a caption's uncertainty with its words",
            uncertainty,
            words,
            statistic="rank_correlation",
            unit="number",
            main=True,
        ),
    ]
    long = (words >= _MIN_WORDS).nonzero().flatten()
    if len(long) == 0:
        return rows
    kept = [captions[place] for place in long.tolist()]
    for change, changed in (
        ("cut to its first half", [shortened(caption) for caption in kept]),
        ("half of its words left out", [thinned(caption) for caption in kept]),
    ):
        more = more_uncertain(embed_captions(model, changed).total_var, uncertainty[long])
        rows.append(row_of_items(name, f"a caption is more uncertain {change}", more))
    return rows


def shortened(caption: str) -> str:
    """The first half of a caption's words, rounded down."""
    words = caption.split()
    return " ".join(words[: len(words) // 2])


def thinned(caption: str) -> str:
    """A random half of a caption's words, rounded down, in their order; the same for equal captions."""
    words = caption.split()
    kept = sorted(random.Random(caption).sample(range(len(words)), len(words) // 2))
    return " ".join(words[place] for place in kept)


def blurred(images: Tensor, share: float) -> Tensor:
    """Blur images [N, C, H, W] with a Gaussian whose standard deviation is a share of their height."""
    channels, sigma = images.shape[1], share * images.shape[-2]
    reach = max(1, min(round(3 * sigma), (min(images.shape[-2:]) - 1) // 2))
    places = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    kernel = (-0.5 * (places / sigma) ** 2).softmax(0).expand(channels, 1, 1, -1)
    rows = F.conv2d(F.pad(images, [reach] * 4, mode="reflect"), kernel, groups=channels)
    return F.conv2d(rows, kernel.transpose(2, 3), groups=channels)


def hide_patches(model: Model, keep_ratio: float) -> Callable[[Tensor], Gaussian]:
    """A view in which the model sees int(P * keep_ratio) random patches of each image, at least one.

    A new view of the same images in the same batches has the same patches.
    """
    network = model.prolip
    assert network is not None, "only ProLIP models can hide patches"
    num_patches = network.config.vision.num_patches
    count = max(1, int(num_patches * keep_ratio))
    draws = torch.Generator().manual_seed(0)

    def view(images: Tensor) -> Gaussian:
        order = torch.rand(len(images), num_patches, generator=draws).argsort(dim=1)
        return network.encode_image(images, order[:, :count].sort(dim=1).values.to(images.device))

    return view
