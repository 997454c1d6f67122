"""Zero-shot classification with prompt ensembles (docs/specification.md, sections 5 and 9).

N images, C classes, K prompts per class, D dimensions.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from prolip.gaussian import Gaussian, dot_products
from prolip.metrics.uncertainty import area_under_risk_coverage, expected_calibration_error, uncertainty_bins

PUBLISHED_LOGIT_SCALE = 100.0
"""Factor of zero-shot logits in the released evaluation (docs/specification.md, section 5). It changes no ranking, but
makes the softmax overconfident: it is not the model's own."""


class Classifier(NamedTuple):
    """One weight vector and one variance vector per class."""

    weight: Tensor
    """[C, D]; unit norm from `aggregate_prompts`, not from re-weighting."""
    var: Tensor
    """[C, D], >= 0; zeros if the text encoder has no variances."""

    @property
    def total_var(self) -> Tensor:
        """Sum over dimensions, [C]."""
        return self.var.sum(dim=-1)


@dataclass(frozen=True, kw_only=True)
class ZeroShotResult:
    """Shares in [0, 1]."""

    top1: float
    top5: float
    """1 with five classes or fewer."""
    mean_per_class_recall: float
    """Top-1, averaged over the classes that occur."""
    majority: float
    """Share of the most frequent class: the accuracy of always answering it."""


def aggregate_prompts(prompts: Gaussian) -> Classifier:
    """The uniform ensemble, in float32 at least: normalised mean of the means, mean of the variances.

    Args:
        prompts: [C, K, D] with unit means.
    """
    prompts = prompts.at_least_float32()
    weight = F.normalize(prompts.mean.mean(dim=1), dim=-1)
    return Classifier(weight, prompts.var.mean(dim=1))


def weighted_sum(weights: Tensor, values: Tensor) -> Tensor:
    """Sum over K of weight * value, [C, K] and [C, K, D] to [C, D], in float32 at least."""
    return dot_products(weights[:, None], values.mT).squeeze(1)


def zero_shot_logits(
    image_mean: Tensor, weight: Tensor, total_var: Tensor | None = None, *, logit_scale: float
) -> Tensor:
    """Logits logit_scale * (mean . weight - total_var / 2), [N, C], in float32 at least.

    Args:
        image_mean: [N, D], unit norm.
        weight: [C, D].
        total_var: [C]; None to classify by means alone.
        logit_scale: the model's own for probabilities (`Model.logit_scale`); `PUBLISHED_LOGIT_SCALE` for ranks.
    """
    logits = logit_scale * dot_products(image_mean, weight)
    return logits if total_var is None else logits - logit_scale / 2 * total_var


def correct_within(logits: Tensor, labels: Tensor, k: int) -> Tensor:
    """Whether the label is among the k best classes, bool [N]; ties count against it. All true for k >= C.

    Raises:
        ValueError: a logit is NaN.
    """
    if k >= logits.shape[1]:
        return torch.ones_like(labels, dtype=torch.bool)
    if bool(logits.isnan().any()):
        raise ValueError("logits: must not be NaN")
    return (logits >= logits.gather(1, labels[:, None])).sum(dim=1) <= k


def evaluate_zero_shot(logits: Tensor, labels: Tensor) -> ZeroShotResult:
    """Top-1, top-5 and mean per-class recall of logits [N, C] for labels i64 [N]; errors as for `correct_within`."""
    top1 = correct_within(logits, labels, 1).double()
    counts = torch.bincount(labels, minlength=logits.shape[1])
    hits = torch.bincount(labels, weights=top1, minlength=logits.shape[1])
    occurs = counts > 0
    return ZeroShotResult(
        top1=float(top1.mean()),
        top5=float(correct_within(logits, labels, 5).double().mean()),
        mean_per_class_recall=float((hits[occurs] / counts[occurs]).mean()),
        majority=float(counts.max() / len(labels)),
    )


def measure_zero_shot(
    images: Gaussian, classifier: Classifier, labels: Tensor, num_bins: int = 10, *, logit_scale: float
) -> dict[str, float]:
    """Zero-shot accuracy with and without class variances, and uncertainty against accuracy.

    Keys: `top1`, `top5`, `mean_per_class_recall`; `majority`; `calibration_error` (of the softmax with the model's own
    scale). If classes have variances, the first three also with the ending `_with_var`; if images have them,
    `uncertainty_pearson_top1` and `_top5` (correlation over bins), and `risk_coverage` (area under the curve).

    Args:
        images: [N, D], unit means.
        labels: i64 [N].
        num_bins: at most N.
    """
    measures: dict[str, float] = {}
    plain = zero_shot_logits(images.mean, classifier.weight, logit_scale=logit_scale)
    scored = {"": plain}
    if bool((classifier.var > 0).any()):
        scored["_with_var"] = plain - logit_scale / 2 * classifier.total_var
    for suffix, logits in scored.items():
        found = evaluate_zero_shot(logits, labels)
        for name in ("top1", "top5", "mean_per_class_recall"):
            measures[f"{name}{suffix}"] = getattr(found, name)
        measures["majority"] = found.majority
    right = {k: correct_within(plain, labels, k) for k in (1, 5)}
    measures["calibration_error"] = expected_calibration_error(plain.softmax(dim=1).amax(dim=1), right[1])
    if not images.is_point:
        for k, correct in right.items():
            measures[f"uncertainty_pearson_top{k}"] = uncertainty_bins(images.total_var, correct, num_bins).pearson
        measures["risk_coverage"] = area_under_risk_coverage(images.total_var, right[1])
    return measures
