"""Suite `uncertainty`: uncertainty against accuracy and caption length, and after hiding or blurring.

It draws the paper's figures (arXiv:2410.18857): histograms, inclusion, occlusion, a map of the Gaussians.

N images, M captions, P patches, K kept patches, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor

from prolip.datasets.data_set import DataSet, embed_set, open_dataset
from prolip.datasets.labels import caption_members, read_captions, read_labels
from prolip.errors import check
from prolip.evaluation.classification import build_classifier
from prolip.evaluation.config import UncertaintyOptions
from prolip.evaluation.evaluate import evaluate_data
from prolip.evaluation.results import Chart, Row, RowId, SuiteResult, TaskCache, TaskResult, row_of_items
from prolip.gaussian import Gaussian, inclusion_score
from prolip.images.tensors import Patches
from prolip.inference.model import Model
from prolip.metrics.uncertainty import count_words, more_uncertain, uncertainty_bins
from prolip.metrics.zero_shot import correct_within, zero_shot_logits
from prolip.report.charts import Line, line_chart
from prolip.report.words import spoken

OCCLUDED = (0.0, 0.025, 0.05, 0.075, 0.1)
"""Shares of an image."""
_MAPPED = 100
"""Maximum images on the map."""
_MASKED = 0.75
"""Share of tokens to hide, as in training."""


def run_uncertainty(model: Model, options: UncertaintyOptions, cache: TaskCache) -> SuiteResult:
    """Measure every data set.

    Raises:
        UserError: the model has no variances, or no data set could be measured.
    """
    check(model.has_variances, "checkpoint", "must have variances", model.name)
    opened = partial(open_dataset, store=options.store, selection=options.selection)
    return evaluate_data("uncertainty", model, options, options.data, cache, opened, measure_set)


def measure_set(model: Model, data: DataSet, options: UncertaintyOptions) -> TaskResult:
    """Measure one data set."""
    occluded = {str(share): occlude(model, share) for share in OCCLUDED[1:]}
    views: dict[str, Callable[[Tensor | Patches], Gaussian]] = {
        "whole": model.encode_pixels,
        "blurred_image": view_of(model, partial(blurred, share=options.blur)),
        **occluded,
    }
    if model.prolip is not None:
        views["hidden_patches"] = hide_patches(model, options.keep_ratio)
    labelled = bool(data.classnames and data.templates)
    keep = (*(("cls",) if labelled else ()), *(caption_members(options.caption_key) if options.caption_key else ()))
    found = embed_set(model, data, options.batch_size, *keep, views=views)
    seen = dict(found.images)
    whole = seen.pop("whole")
    steps = [whole, *(seen.pop(view) for view in occluded)]
    uncertainty = whole.total_var.double()
    rows = [
        row_of_items(RowId("occluded_uncertainty", at=share), step.total_var)
        for share, step in zip(OCCLUDED, steps, strict=True)
    ]
    order = uncertainty.argsort(stable=True).tolist()
    ends = [", ".join(found.keys[place] for place in some[: options.show]) for some in (order, order[::-1])]
    notes = [f"most certain are {ends[0]}; least certain {ends[1]}"] if options.show else []
    charts: list[Chart] = []
    curves = {"mean uncertainty": [row.value for row in rows]}
    if labelled:
        classifier, labels = build_classifier(model, data.classnames, data.templates), read_labels(data, found)
        logits = [zero_shot_logits(step.mean, classifier.weight, logit_scale=model.logit_scale) for step in steps]
        measured = accuracy_figures(uncertainty, logits[0], labels, options.num_bins)
        hits = [
            row_of_items(RowId("occluded_accuracy", at=share), correct_within(some, labels, 1))
            for share, some in zip(OCCLUDED, logits, strict=True)
        ]
        curves["accuracy"] = [row.value for row in hits]
        rows, charts = [*rows, *measured.rows, *hits[1:]], measured.charts
    items, pairs = {"images": whole}, {view: (whole, changed) for view, changed in seen.items()}
    if options.caption_key is not None:
        texts = read_captions(data, found, options.caption_key).texts
        captions = list(chain.from_iterable(texts))
        items["captions"] = own = model.encoder.embed_captions(captions)
        images = torch.tensor([place for place, some in enumerate(texts) for _ in some])
        pairs["caption"] = whole.rows(images), own
        spread, words = own.total_var.double(), count_words(captions)
        rows += [
            row_of_items(RowId("mean_uncertainty", of="captions"), spread),
            row_of_items(RowId("caption_length_correlation"), spread, words, statistic="rank_correlation", main=True),
        ]
        charts.append(length_chart(spread, words))
        pad_id = int(model.tokenize("")[0, -1])
        masked = replace(
            model.encoder, tokenizer=lambda some: hide_tokens(model.tokenize(some), pad_id, options.mask_id)
        )
        pairs["hidden_tokens"] = own, masked.embed_captions(captions)
    changes = change_figures(items, pairs)
    lines = [
        Line(kind, OCCLUDED, [value / (curve[0] or math.nan) for value in curve]) for kind, curve in curves.items()
    ]
    text = "A grey rectangle hides a share of each image. Values are relative to those of whole images."
    drawn = line_chart("Occlusion", text, lines, x_label="occluded share of an image", percent=True, marks=True)
    charts += [Chart(title="occlusion", text=text, svg=drawn), *changes.charts]
    return TaskResult(rows=rows + changes.rows, notes=notes, charts=charts)


def length_chart(uncertainty: Tensor, words: Tensor) -> Chart:
    """Mean of f64 [M], by the number of words, i64 [M]."""
    lengths = sorted(set(words.tolist()))
    line = Line("captions", lengths, [float(uncertainty[words == length].mean()) for length in lengths])
    text = "Mean uncertainty of the captions of each number of words."
    drawn = line_chart("Uncertainty by words", text, [line], x_label="words", marks=True)
    return Chart(title="uncertainty by words", text=text, svg=drawn)


def change_figures(items: Mapping[str, Gaussian], pairs: Mapping[str, tuple[Gaussian, Gaussian]]) -> TaskResult:
    """How often the second of a pair is more uncertain, and includes the first; histograms, and a map of the items."""
    values, rows = {f"uncertainty of {kind}": some.total_var for kind, some in items.items()}, []
    for kind, (first, second) in pairs.items():
        values[f"H of the original in {spoken(kind)}"] = score = inclusion_score(first, second).double().sum(dim=1)
        more = more_uncertain(second.total_var, first.total_var)
        rows.append(row_of_items(RowId("more_uncertain", by=kind), more))
        rows.append(row_of_items(RowId("includes", by=kind), score > 0))
    text = f"Up to {_MAPPED} Gaussians of each kind. The radii of an ellipse are standard deviations."
    axes = "first and second principal component of the means"
    charts = [Chart(title="map", text=text, svg=line_chart("Map", text, project(items), x_label=axes))]
    for kind, some in values.items():
        counts, edges = some[some.isfinite()].float().histogram(30)
        text = "Share of the items in each of 30 bins."
        line = Line(kind, edges.unfold(0, 2, 1).mean(dim=1).tolist(), (counts / len(some)).tolist())
        drawn = line_chart(kind, text, [line], x_label=kind, y_scale="from zero", percent=True)
        charts.append(Chart(title=f"histogram, {kind}", text=text, svg=drawn))
    return TaskResult(rows=rows, charts=charts)


def project(groups: Mapping[str, Gaussian]) -> list[Line]:
    """Some items of each group on the two principal components of their means, with standard deviations as radii."""
    some = {kind: items.rows(slice(None, None, -(-len(items.mean) // _MAPPED))) for kind, items in groups.items()}
    means = torch.cat([items.mean for items in some.values()])
    axes = torch.linalg.svd(means - means.mean(dim=0), full_matrices=False).Vh[:2].T
    lines = []
    for kind, items in some.items():
        x, y = (items.mean @ axes).T.tolist()
        lines.append(Line(kind, x, y, (items.var @ axes.square()).sqrt().tolist()))
    return lines


def accuracy_figures(uncertainty: Tensor, logits: Tensor, labels: Tensor, num_bins: int) -> TaskResult:
    """Accuracy by uncertainty: rows and a chart.

    `uncertainty` is f64 [N], `labels` i64 [N]. The zero-shot `logits`, [N, C], have the model's own scale: their
    softmax is the confidence.
    """
    correct = correct_within(logits, labels, 1).double()
    bins = uncertainty_bins(uncertainty, correct, num_bins)
    order = uncertainty.argsort(stable=True)
    confidence = logits.softmax(dim=1).amax(dim=1)
    rows = [
        Row(id=RowId("uncertainty_correlation"), value=bins.pearson, num_items=len(labels), main=True),
        row_of_items(RowId("risk_coverage"), uncertainty, correct, statistic="risk_coverage"),
        row_of_items(RowId("expected_calibration_error"), confidence, correct, statistic="calibration_error"),
        row_of_items(RowId("accuracy"), correct),
    ]
    for end, some in (("most", order[: bins.bin_size]), ("least", order[-bins.bin_size :])):
        id, chosen = RowId(f"{end}_certain_accuracy", at=num_bins), torch.zeros_like(order).index_fill(0, some, 1)
        rows.append(row_of_items(id, correct, chosen, statistic="mean_of_chosen"))
    text = f"Accuracy in {num_bins} bins of equally many images, from certain to uncertain."
    line = Line(name="accuracy", x=list(range(1, num_bins + 1)), y=bins.accuracy)
    drawn = line_chart(
        "Accuracy by uncertainty", text, [line], x_label="bin", y_scale="share", percent=True, marks=True
    )
    return TaskResult(rows=rows, charts=[Chart(title="accuracy by uncertainty", text=text, svg=drawn)])


def hide_tokens(ids: Tensor, pad_id: int, mask_id: int | None) -> Tensor:
    """Hide each token of captions, i64 [B, L], with probability 3/4, as in training; padding stays.

    `mask_id` replaces the tokens. Without it they are removed, but for at least one of each caption.
    """
    draws = torch.rand(ids.shape, generator=torch.Generator().manual_seed(0)).masked_fill(ids == pad_id, -1)
    if mask_id is not None:
        return ids.masked_fill((draws >= 0) & (draws < _MASKED), mask_id)
    gone = (draws < _MASKED) & (draws < draws.amax(dim=1, keepdim=True))
    return ids.masked_fill(gone, pad_id).gather(1, gone.int().argsort(dim=1, stable=True))


def view_of(model: Model, change: Callable[[Tensor], Tensor]) -> Callable[[Tensor | Patches], Gaussian]:
    """Images [B, 3, H, W] after a change. Those of patches are changed one by one."""

    def view(images: Tensor | Patches) -> Gaussian:
        if isinstance(images, Tensor):
            return model.encode_pixels(change(images))
        size = model.preprocess.patch_size
        return model.encode_pixels(Patches.of([change(image[None])[0] for image in images.images(size)], size))

    return view


def occlude(model: Model, share: float) -> Callable[[Tensor | Patches], Gaussian]:
    """A rectangle at a random place, a share of each image [B, 3, H, W], has the mean colour."""
    draws = torch.Generator().manual_seed(0)

    def hide(images: Tensor) -> Tensor:
        images = images.clone()
        height, width = (round(share**0.5 * side) for side in images.shape[-2:])
        for image, (down, across) in zip(images, torch.rand(len(images), 2, generator=draws).tolist(), strict=True):
            top, left = int(down * (image.shape[1] - height + 1)), int(across * (image.shape[2] - width + 1))
            image[:, top : top + height, left : left + width] = 0
        return images

    return view_of(model, hide)


def blurred(images: Tensor, share: float) -> Tensor:
    """By a Gaussian whose standard deviation is a share of the height of images [N, C, H, W]."""
    channels, sigma = images.shape[1], share * images.shape[-2]
    reach = max(1, min(round(3 * sigma), (min(images.shape[-2:]) - 1) // 2))
    places = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    kernel = (-0.5 * (places / sigma) ** 2).softmax(0).expand(channels, 1, 1, -1)
    rows = F.conv2d(F.pad(images, [reach] * 4, mode="reflect"), kernel, groups=channels)
    return F.conv2d(rows, kernel.transpose(2, 3), groups=channels)


def hide_patches(model: Model, keep_ratio: float) -> Callable[[Tensor | Patches], Gaussian]:
    """int(P * keep_ratio) random patches of each image of P patches, at least one.

    A new view of the same images in the same batches has the same patches.
    """
    network = model.prolip
    assert network is not None, "only ProLIP models can hide patches"
    draws = torch.Generator().manual_seed(0)

    def view(images: Tensor | Patches) -> Gaussian:
        if isinstance(images, Patches):
            numbers = images.grids.prod(dim=1, keepdim=True).cpu()
        else:
            numbers = torch.full((len(images), 1), network.config.vision.num_patches)
        longest = int(numbers.max())
        columns = torch.arange(longest)
        order = torch.rand(len(numbers), longest, generator=draws).masked_fill(columns >= numbers, 2).argsort(dim=1)
        counts = (numbers.double() * keep_ratio).long().clamp(min=1)
        kept = order.masked_fill(columns >= counts, longest).sort(dim=1).values[:, : int(counts.max())]
        device = images[0].device  # also of patches
        return network.encode_image(images, kept.masked_fill(kept == longest, -1).to(device))

    return view
