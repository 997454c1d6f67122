"""All measures of a family in one call: Gaussians in, a flat dict of floats out.

Shares are in [0, 1], ranks count from 1. The functions called here return typed results and take more settings. Figures
that need variances are left out for a model without them, whose Gaussians are points.
N images, M texts, C classes, L levels, D dimensions.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from prolip.errors import UserError
from prolip.gaussian import Gaussian
from prolip.metrics.config import InclusionForm, Root, Score, TraversalConfig
from prolip.metrics.hierarchy import including_items, inclusion, traverse
from prolip.metrics.retrieval import evaluate_retrieval, precision_at_r
from prolip.metrics.statistics import Interval
from prolip.metrics.uncertainty import (
    area_under_risk_coverage,
    expected_calibration_error,
    uncertainty_along_chains,
    uncertainty_bins,
    uncertainty_by_length,
)
from prolip.metrics.zero_shot import Classifier, correct_within, evaluate_zero_shot, zero_shot_logits

SCORES: tuple[Score, ...] = ("csd", "mean")
_ROOTS: tuple[Root, ...] = ("inclusion", "both")
_FORMS: tuple[InclusionForm, ...] = ("official", "exact")


def flat(result: Any, prefix: str = "") -> dict[str, float]:
    """All numbers in a dataclass, interval or mapping by name; nested names are joined by "_", lists are numbered."""
    if isinstance(result, int | float):
        return {prefix: float(result)}
    if isinstance(result, Interval):
        return {prefix: result.value, f"{prefix}_low": result.low, f"{prefix}_high": result.high}
    if is_dataclass(result):
        items: Mapping[str, Any] = {field.name: getattr(result, field.name) for field in fields(result)}
    elif isinstance(result, Mapping):
        items = result
    else:
        items = {str(place): item for place, item in enumerate(result)}
    joined = f"{prefix}_" if prefix else ""
    return {key: value for name, item in items.items() for key, value in flat(item, f"{joined}{name}").items()}


def measure_zero_shot(
    images: Gaussian, classifier: Classifier, labels: Tensor, num_bins: int = 10, *, logit_scale: float
) -> dict[str, float]:
    """Zero-shot accuracy with and without class variances, and uncertainty against accuracy.

    Keys: `top1`, `top5`, `mean_per_class_recall`; `majority`; `calibration_error` (of the softmax with the model's own
    scale). If classes have variances, the first three also with the ending `_with_var`; if images have them,
    `uncertainty_pearson_top1` and `_top5` (correlation over bins), and `risk_coverage` (area under the curve).

    Args:
        images: [N, D], unit means.
        classifier: C classes.
        labels: i64 [N].
        num_bins: bins of uncertainty, at most N.
        logit_scale: the model's own scale.
    """
    measures: dict[str, float] = {}
    with_var = {"_with_var": classifier.total_var} if bool((classifier.var > 0).any()) else {}
    for suffix, total_var in {"": None, **with_var}.items():
        logits = zero_shot_logits(images.mean, classifier.weight, total_var, logit_scale=logit_scale)
        found = evaluate_zero_shot(logits, labels)
        names = ("top1", "top5", "mean_per_class_recall")
        measures |= {f"{name}{suffix}": float(getattr(found, name)) for name in names}
        measures["majority"] = found.majority
    logits = zero_shot_logits(images.mean, classifier.weight, logit_scale=logit_scale)
    uncertainty, top1 = images.total_var, correct_within(logits, labels, 1)
    measures["calibration_error"] = expected_calibration_error(logits.softmax(dim=1).amax(dim=1), top1)
    if images.is_point:
        return measures
    for k, correct in ((1, top1), (5, correct_within(logits, labels, 5))):
        measures[f"uncertainty_pearson_top{k}"] = uncertainty_bins(uncertainty, correct, num_bins).pearson
    measures["risk_coverage"] = area_under_risk_coverage(uncertainty, top1)
    return measures


def measure_retrieval(images: Gaussian, texts: Gaussian, image_of_text: Tensor) -> dict[str, float]:
    """Retrieval in both directions, by sampled distance and by means alone.

    Keys are DIRECTION_SCORE_MEASURE: `image_to_text`, `text_to_image`; `csd`, `mean`; `recall_at_1`, `_5`, `_10`,
    `mean_rank`, `median_rank`, `r_precision`, `map_at_r`. If images or texts have no variances, `mean` alone.

    Args:
        images: [N, D], unit means.
        texts: [M, D], unit means.
        image_of_text: i64 [M], row of the image that each text belongs to; every image needs a text.
    """
    correct = torch.arange(len(images.mean), device=image_of_text.device)[:, None] == image_of_text[None]
    measures: dict[str, float] = {}
    for score in ("mean",) if images.is_point or texts.is_point else SCORES:
        for way, queries, candidates, right in (
            ("image_to_text", images, texts, correct),
            ("text_to_image", texts, images, correct.T),
        ):
            found = flat(evaluate_retrieval(queries, candidates, right, score))
            found |= flat(precision_at_r(queries, candidates, right, score))
            measures |= {f"{way}_{score}_{name}": value for name, value in found.items() if not name.startswith("num_")}
    return measures


def measure_hierarchy(
    queries: Gaussian,
    items: Gaussian,
    item_ids: Tensor,
    root: Tensor,
    *,
    num_steps: int = 50,
    num_resamples: int = 1000,
) -> dict[str, float]:
    """Walks, inclusion and uncertainty by level: HierarCaps (queries are images), HierarImgs (queries are captions).

    Keys of walks are ROOT_MEASURE: `text` (the given root), `inclusion_official`, `inclusion_exact`, `both_official`,
    `both_exact`; `precision`, `recall`, `any_found`. `include_LEVEL`: share of queries that lie in their own item of a
    level (exact H > 0); level 0 is the most general. `level_mean_LEVEL`. `level_spearman` and `level_share_ordered`,
    also with `_low` and `_high` for their bootstrap intervals. If queries or items have no variances, the walk to the
    given root alone.

    Args:
        queries: [N, D], unit means.
        items: [N, L, D], unit means, the most general level first.
        item_ids: i64 [N, L]; equal ids are equal items.
        root: [D], such as the mean of the empty caption, or `mean_root` of images.
        num_steps: steps of a walk.
        num_resamples: bootstrap resamples.
    """
    with_var = not (queries.is_point or items.is_point)
    walks: list[tuple[Root, InclusionForm]] = [("text", "official"), *(product(_ROOTS, _FORMS) if with_var else ())]
    including = {form: including_items(queries, items.flatten(), form) for form in _FORMS} if with_var else {}
    measures: dict[str, float] = {}
    for kind, form in walks:
        config = TraversalConfig(root=kind, inclusion=form, num_steps=num_steps)
        found = traverse(queries, items, item_ids, root, config, including=including.get(form))._asdict()
        name = kind if kind == "text" else f"{kind}_{form}"
        measures |= {f"{name}_{measure}": float(share.mean()) for measure, share in found.items()}
    if not with_var:
        return measures
    for level in range(items.mean.shape[1]):
        own = Gaussian(items.mean[:, level], items.log_var[:, level])
        measures[f"include_{level}"] = inclusion(queries, own, ("query", str(level))).share_positive
    return measures | flat(uncertainty_along_chains(items.total_var, num_resamples=num_resamples), "level")


def measure_uncertainty(images: Gaussian, texts: Gaussian, lengths: Tensor) -> dict[str, float]:
    """Mean, spread and quantiles of the uncertainty of images and texts, and its correlation with a text's length.

    Keys: `image_mean`, `image_std`, `image_low`, `image_median`, `image_high` (10th, 50th, 90th percentile); the same
    for `text`; `length_spearman`, also with `_low` and `_high`.

    Args:
        images: [N, D].
        texts: [M, D].
        lengths: i64 [M], tokens or words of the texts.

    Raises:
        UserError: there is no image or no text, or one of the two has no variances.
    """
    for name, gaussian in (("images", images), ("texts", texts)):
        if len(gaussian.mean) == 0:
            raise UserError(f"there are no {name}")
        if gaussian.is_point:
            raise UserError(f"{name} have no variances: there is no uncertainty to measure")
    measures: dict[str, float] = {}
    for name, side in (("image", images.total_var.double()), ("text", texts.total_var.double())):
        low, median, high = side.quantile(torch.tensor([0.1, 0.5, 0.9], dtype=side.dtype, device=side.device)).tolist()
        measures |= {f"{name}_mean": float(side.mean()), f"{name}_std": float(side.std(correction=0))}
        measures |= {f"{name}_low": low, f"{name}_median": median, f"{name}_high": high}
    return measures | flat(uncertainty_by_length(texts.total_var, lengths).spearman, "length_spearman")
