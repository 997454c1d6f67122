"""Zero-shot classification with prompt ensembles (docs/specification.md, sections 5 and 9).

N images, C classes, K prompts per class, D dimensions.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from prolip.gaussian import Gaussian, dot_products

PUBLISHED_LOGIT_SCALE = 100.0
"""Factor of zero-shot logits in the released evaluation (docs/specification.md, section 5), the same for all models.
It changes no ranking, so accuracies are the published ones. But it is not the model's own scale: the softmax of such
logits is overconfident."""


class Classifier(NamedTuple):
    """One weight vector and one variance vector per class."""

    weight: Tensor
    """[C, D]; unit norm from `aggregate_prompts`, not from re-weighting."""
    var: Tensor
    """[C, D], >= 0; zeros if the text encoder has no variances."""

    @property
    def total_var(self) -> Tensor:
        """Sum of the variances over dimensions, [C]."""
        return self.var.sum(dim=-1)


@dataclass(frozen=True, kw_only=True)
class ZeroShotResult:
    """Accuracy and recall, shares in [0, 1]."""

    top1: float
    top5: float
    """1 with five classes or fewer."""
    mean_per_class_recall: float
    """Top-1 recall averaged over the classes that occur."""
    majority: float
    """Share of the most frequent class: the accuracy of always answering it."""
    num_images: int
    num_classes: int


def aggregate_prompts(prompts: Gaussian) -> Classifier:
    """The uniform ensemble, in float32 at least: normalised mean of the prompts' means, mean of their variances.

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
    """Return logit_scale * (mean . weight - total_var / 2), [N, C], in float32 at least.

    Without `total_var`, the first term only.

    Args:
        image_mean: [N, D], unit norm.
        weight: [C, D].
        total_var: [C], each class's total variance; None to classify by means alone.
        logit_scale: the model's own scale, if the logits become probabilities (`Model.logit_scale`);
            `PUBLISHED_LOGIT_SCALE` to rank classes as in the released evaluation.
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
        raise ValueError("logits hold NaN")
    return (logits >= logits.gather(1, labels[:, None])).sum(dim=1) <= k


def evaluate_zero_shot(logits: Tensor, labels: Tensor) -> ZeroShotResult:
    """Top-1, top-5 and mean per-class recall of logits.

    Args:
        logits: [N, C].
        labels: i64 [N], class indices.

    Raises:
        ValueError: there is no image or no class, or a logit is NaN.
    """
    if logits.numel() == 0:
        raise ValueError("zero-shot evaluation needs at least one image and one class")
    top1 = correct_within(logits, labels, 1).double()
    counts = torch.bincount(labels, minlength=logits.shape[1])
    hits = torch.bincount(labels, weights=top1, minlength=logits.shape[1])
    occurs = counts > 0
    return ZeroShotResult(
        top1=float(top1.mean()),
        top5=float(correct_within(logits, labels, 5).double().mean()),
        mean_per_class_recall=float((hits[occurs] / counts[occurs]).mean()),
        majority=float(counts.max() / len(labels)),
        num_images=len(labels),
        num_classes=logits.shape[1],
    )
