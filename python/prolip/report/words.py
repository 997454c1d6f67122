"""The words of a figure's id (`prolip.evaluation.results.RowId`, as in results.json), and its unit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Id = Mapping[str, Any]

_MEASURES = {
    "accuracy_with_variances": "accuracy, with class variances",
    "answered": "answered, with at most {at:.0%} wrong",
    "attribute_accuracy": "{of} accuracy",
    "caption_length_correlation": "rank correlation of a caption's uncertainty with its words",
    "certain_half_recall": "{way} R@1 of the more certain half",
    "class_recall": "mean per-class recall",
    "confusion": "{of} taken for {other}",
    "contained": "contains_right {at:g}: a right image is shown",
    "contained_images": "contains_right {at:g}: images shown",
    "contained_within_limits": "both: a right image is shown",
    "dont_know": "max_error {at:g}: don't know",
    "entailment_auroc": "entailment (PEP), AUC against {other}",
    "entailment_average_precision": "entailment (PEP), average precision against {other}",
    "error_auroc": "AUROC of errors",
    "excess_risk_coverage": "excess area under risk and coverage",
    "f1_macro": "F1-macro",
    "first_is_right_auroc": "AUROC of whether the first image is right",
    "first_is_right_error": "calibration error of whether the first image is right",
    "generality_correlation": "rank correlation of uncertainty with generality",
    "includes": "{by} includes the original, H > 0",
    "jaccard": "Jaccard",
    "level_inclusion": "lies in its level {at:g} (0 is the most general)",
    "map_at_r": "{way} mAP@R",
    "map_at_r_correlation": "correlation of {way} mAP@R with the query's uncertainty, over bins",
    "mean_of_tasks": "{of}, mean of {at:g} tasks",
    "mean_recall": "mean recall@1",
    "more_uncertain": "{by} is more uncertain",
    "most_certain_accuracy": "accuracy of the most certain 1/{at:g}",
    "least_certain_accuracy": "accuracy of the least certain 1/{at:g}",
    "nothing_in_vain": "max_wrong {at:g}: nothing is shown if none is right",
    "occluded_accuracy": "accuracy, {at:.1%} occluded",
    "occluded_uncertainty": "mean uncertainty of images, {at:.1%} occluded",
    "ood_auroc": "AUROC out of distribution",
    "r_precision": "{way} R-precision",
    "recall": "recall of {of}",
    "recall_at": "{way} R@{at:g}",
    "recall_correlation": "correlation of {way} R@{at:g} with the query's uncertainty, over bins",
    "right_answers": "max_error {at:g}: right among the answered",
    "right_is_there_auroc": "AUROC of whether a right image is there",
    "risk_coverage": "area under risk and coverage",
    "search_risk_coverage": "risk-coverage, {at:.0%} without a right image",
    "set_coverage": "label sets at {at:.0%} contain the label",
    "set_size": "size of label sets at {at:.0%}",
    "shown_if_right": "max_wrong {at:g}: something is shown if one is right",
    "taken_for": "taken for {other}",
    "top5_accuracy": "top-5 accuracy",
    "uncertain_half_recall": "{way} R@1 of the less certain half",
    "uncertainty_correlation": "correlation of accuracy with uncertainty, over bins",
    "walk_any_found": "any found",
    "walk_precision": "precision",
    "walk_recall": "recall",
    "worst_attribute_accuracy": "{of} accuracy, worst of {other}",
    "worst_group_accuracy": "worst-group accuracy",
    "worst_group_top5_accuracy": "worst-group top-5 accuracy",
    "worst_region_accuracy": "worst-region accuracy",
    "wrong_answers": "wrong among the answered, with at most {at:.0%} wrong",
    "wrong_pair_auroc": "AUROC of wrong pairs",
}
"""A measure without words is its own, with blanks for underscores."""
_WORDS = {
    "blurred_image": "a blurred image",
    "bprw": "BPRW",
    "both_exact": "walk to the root and including item (exact)",
    "both_official": "walk to the root and including item (official, as in Table 2)",
    "caption": "the caption of an image",
    "caption_variance": "caption's variance",
    "class_gaussians": "class Gaussians",
    "csd": "sampled distance",
    "csd_and_variances": "distance and both variances",
    "csd_posterior": "sampled distance's posterior",
    "few_candidates": "5 and 6 candidates",
    "hidden_patches": "an image with patches hidden",
    "hidden_tokens": "a caption with tokens hidden",
    "image_to_image": "image to image",
    "image_to_text": "image to caption",
    "image_variance": "image's variance",
    "inclusion_exact": "walk to the including item (exact)",
    "inclusion_official": "walk to the including item (official)",
    "known_regions": "regions but Other",
    "mahalanobis_distance": "Mahalanobis distance",
    "many_candidates": "10 and 12 candidates",
    "mean": "cosine",
    "mean_posterior": "cosine's posterior",
    "per_label": "thresholds of labels",
    "probability_and_class_gaussians": "probability and class Gaussians",
    "root": "walk to the root",
    "text_to_image": "caption to image",
}
"""Of scores, methods and settings."""
_NUMBERS = {
    "brier_score",
    "caption_length_correlation",
    "contained_images",
    "excess_risk_coverage",
    "expected_calibration_error",
    "generality_correlation",
    "map_at_r_correlation",
    "mean_uncertainty",
    "negative_log_likelihood",
    "occluded_uncertainty",
    "recall_correlation",
    "risk_coverage",
    "set_size",
    "uncertainty_correlation",
}
"""Measures that are no shares."""


def is_share(id: Id) -> bool:
    """Shown in percent."""
    return id["measure"] not in _NUMBERS


def measure_words(id: Id) -> str:
    """What was measured."""
    text = _MEASURES.get(id["measure"], spoken(id["measure"]))
    by, way, minus = (spoken(id[name] or "") for name in ("by", "way", "minus"))
    parts = [text.format(by=by, way=way, of=id["of"], other=id["other"], at=id["at"])]
    if way and "{way}" not in text:
        parts.append(way)
    if id["minus"] is not None:
        parts.append(f"{by} − {minus}" if by and minus else f"change by {by or id['of']}")
    elif by and "{by}" not in text:
        parts.append(f"by {by}")
    if id["of"] and "{of}" not in text and (by or id["minus"] is None):
        parts.append(f"of {id['of']}")
    return ", ".join(parts)


def task_words(id: Id) -> str:
    """What it was measured on."""
    other = id["other"] if "{other}" not in _MEASURES.get(id["measure"], "") else ""
    return ", ".join(filter(None, [id["data"], other]))


def spoken(key: str) -> str:
    """Of a score, a method or a setting."""
    return _WORDS.get(key, key.replace("_", " "))
