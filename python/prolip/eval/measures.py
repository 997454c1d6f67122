"""One call for each family of measures: Gaussians in, a flat dict of floats out.

Shares are in [0, 1], ranks count from 1. The functions behind them return typed results and take more settings.
N images, M texts, C classes, K prompts, L levels, D dimensions.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from prolip.eval.config import InclusionForm, Root, Score, TraversalConfig
from prolip.eval.hierarcaps import including_captions, traverse
from prolip.eval.hierarchy import inclusion
from prolip.eval.retrieval import evaluate_retrieval, precision_at_r
from prolip.eval.statistics import Interval
from prolip.eval.uncertainty import area_under_risk_coverage, expected_calibration_error, uncertainty_bins
from prolip.eval.uncertainty_trends import uncertainty_along_chains, uncertainty_by_length
from prolip.eval.zero_shot import Classifier, correct_within, evaluate_zero_shot, zero_shot_logits
from prolip.gaussian import Gaussian

SCORES: tuple[Score, ...] = ("csd", "mean")
ROOTS: tuple[Root, ...] = ("inclusion", "both")
FORMS: tuple[InclusionForm, ...] = ("official", "exact")


def flat(result: Any, prefix: str = "") -> dict[str, float]:
    """The numbers of a dataclass, an interval or a mapping by name; lists are numbered, names joined by "_"."""
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


def measure_zero_shot(images: Gaussian, classifier: Classifier, labels: Tensor, num_bins: int = 10) -> dict[str, float]:
    """Classification with and without class variances, and how uncertainty goes with accuracy.

    `top1`, `top5`, `mean_per_class_recall`, `majority`, the same ending in `_with_var`; `uncertainty_pearson_top1` and
    `_top5` (SPEC §9), `risk_coverage` (its area), `calibration_error` of the softmax.

    Args:
        images: [N, D], unit means.
        classifier: C classes.
        labels: i64 [N].
        num_bins: of the uncertainties; N must fill them.
    """
    figures: dict[str, float] = {}
    for suffix, total_var in (("", None), ("_with_var", classifier.total_var)):
        found = evaluate_zero_shot(zero_shot_logits(images.mean, classifier.weight, total_var), labels)
        names = ("top1", "top5", "mean_per_class_recall")
        figures |= {f"{name}{suffix}": float(getattr(found, name)) for name in names}
        figures["majority"] = found.majority
    logits = zero_shot_logits(images.mean, classifier.weight)
    uncertainty, top1 = images.total_var, correct_within(logits, labels, 1)
    for k, correct in ((1, top1), (5, correct_within(logits, labels, 5))):
        figures[f"uncertainty_pearson_top{k}"] = uncertainty_bins(uncertainty, correct, num_bins).pearson
    figures["risk_coverage"] = area_under_risk_coverage(uncertainty, top1)
    figures["calibration_error"] = expected_calibration_error(logits.softmax(dim=1).amax(dim=1), top1)
    return figures


def measure_retrieval(images: Gaussian, texts: Gaussian, image_of_text: Tensor) -> dict[str, float]:
    """Retrieval both ways, by sampled distance and by means alone.

    Keys are DIRECTION_SCORE_FIGURE: `image_to_text`, `text_to_image`; `csd`, `mean`; `recall_at_1`, `_5`, `_10`,
    `mean_rank`, `median_rank`, `r_precision`, `map_at_r`.

    Args:
        images: [N, D], unit means.
        texts: [M, D], unit means.
        image_of_text: i64 [M], row of the image that each text belongs to; every image needs one.
    """
    correct = torch.arange(len(images.mean), device=image_of_text.device)[:, None] == image_of_text[None]
    figures: dict[str, float] = {}
    for score in SCORES:
        for way, queries, candidates, right in (
            ("image_to_text", images, texts, correct),
            ("text_to_image", texts, images, correct.T),
        ):
            found = flat(evaluate_retrieval(queries, candidates, right, score))
            found |= flat(precision_at_r(queries, candidates, right, score))
            figures |= {f"{way}_{score}_{name}": value for name, value in found.items() if not name.startswith("num_")}
    return figures


def measure_hierarchy(
    queries: Gaussian,
    items: Gaussian,
    item_ids: Tensor,
    root: Tensor,
    *,
    num_steps: int = 50,
    num_resamples: int = 1000,
) -> dict[str, float]:
    """HierarCaps (images among captions) or HierarImgs (captions among images): walks, inclusion, uncertainty by level.

    Walks: ROOT_FORM_FIGURE with `text` (the given root), `inclusion_official`, `inclusion_exact`, `both_official`,
    `both_exact`; `precision`, `recall`, `any_found`. `include_LEVEL`: share of queries that lie in their item of a
    level (exact H > 0), level 0 the most general. `level_mean_LEVEL`; `level_spearman` and `level_share_ordered`, with
    `_low` and `_high` of their bootstrap intervals.

    Args:
        queries: [N, D], unit means.
        items: [N, L, D], unit means, the most general level first.
        item_ids: i64 [N, L]; equal ids are equal items.
        root: [D], such as the mean of the empty caption, or `mean_root` of pictures.
        num_steps: of a walk.
        num_resamples: of the intervals.
    """
    walks: list[tuple[Root, InclusionForm]] = [("text", "official"), *product(ROOTS, FORMS)]
    including = {form: including_captions(queries, items.flatten(), form) for form in FORMS}
    figures: dict[str, float] = {}
    for kind, form in walks:
        config = TraversalConfig(root=kind, inclusion=form, num_steps=num_steps)
        found = traverse(queries, items, item_ids, root, config, including=including[form])._asdict()
        name = kind if kind == "text" else f"{kind}_{form}"
        figures |= {f"{name}_{figure}": float(share.mean()) for figure, share in found.items()}
    for level in range(items.mean.shape[1]):
        own = Gaussian(items.mean[:, level], items.log_var[:, level])
        figures[f"include_{level}"] = inclusion(queries, own, ("query", str(level))).share_positive
    return figures | flat(uncertainty_along_chains(items.total_var, num_resamples=num_resamples), "level")


def measure_uncertainty(images: Gaussian, texts: Gaussian, lengths: Tensor) -> dict[str, float]:
    """How unsure the model is: means, spreads and quantiles of both kinds, and what a caption's length does.

    Keys: `image_mean`, `image_std`, `image_low`, `image_median`, `image_high` (10th, 50th, 90th percentile), the same
    for `text`; `length_spearman` with `_low` and `_high`.

    Args:
        images: [N, D].
        texts: [M, D].
        lengths: i64 [M], tokens or words of the texts.
    """
    figures: dict[str, float] = {}
    for name, side in (("image", images.total_var.double()), ("text", texts.total_var.double())):
        low, median, high = side.quantile(torch.tensor([0.1, 0.5, 0.9], dtype=side.dtype, device=side.device)).tolist()
        figures |= {f"{name}_mean": float(side.mean()), f"{name}_std": float(side.std())}
        figures |= {f"{name}_low": low, f"{name}_median": median, f"{name}_high": high}
    return figures | flat(uncertainty_by_length(texts.total_var, lengths).spearman, "length_spearman")
