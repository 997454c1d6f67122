"""Uncertainty against accuracy, and similarity under uncertainty (docs/specification.md, section 9).

An item's uncertainty is the sum of its variances over dimensions. N items.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from prolip.errors import UserError
from prolip.gaussian import Gaussian, dot_products
from prolip.metrics.statistics import calibration_error, pearson, risk_coverage, sorted_means, value_of


@dataclass(frozen=True, kw_only=True)
class AccuracyBins:
    """Accuracy in bins of equal size, the most certain items first."""

    accuracy: list[float]
    mean_uncertainty: list[float]
    bin_size: int
    num_dropped: int
    """The remainder of N / bins: the most uncertain items, left out as in the published measure."""
    pearson: float
    """Of accuracy with the bin's number; negative is good. NaN if all bins are equal."""


def uncertainty_bins(uncertainty: Tensor, correct: Tensor, num_bins: int = 10) -> AccuracyBins:
    """Accuracy by uncertainty: items in ascending order, bins of floor(N / num_bins), the remainder dropped.

    Equally uncertain items count with their mean accuracy, so their order has no effect.

    Args:
        uncertainty: [N].
        correct: [N], 0 or 1 (or bool).
        num_bins: at least 1.

    Raises:
        UserError: fewer items than bins.
        ValueError: the two differ in shape, or an uncertainty is NaN.
    """
    if uncertainty.shape != correct.shape or bool(uncertainty.isnan().any()):
        raise ValueError("uncertainty: must have one number per item, as correct, none NaN")
    size = len(uncertainty) // num_bins
    if size == 0:
        raise UserError("num_bins", f"must be at most the number of items, {len(uncertainty)}", num_bins)
    accuracy, mean_uncertainty = (
        some[: size * num_bins].view(num_bins, size).mean(dim=1)
        for some in (sorted_means(uncertainty, correct), uncertainty.double().sort().values)
    )
    return AccuracyBins(
        accuracy=accuracy.tolist(),
        mean_uncertainty=mean_uncertainty.tolist(),
        bin_size=size,
        num_dropped=len(uncertainty) - size * num_bins,
        pearson=pearson(accuracy, torch.arange(num_bins, device=accuracy.device)),
    )


def area_under_risk_coverage(uncertainty: Tensor, correct: Tensor) -> float:
    """In [0, 1], from uncertainties [N] and hits [N]; see `risk_coverage`."""
    return value_of(risk_coverage, uncertainty, correct)


def expected_calibration_error(confidence: Tensor, correct: Tensor, num_bins: int = 15) -> float:
    """In [0, 1], from confidences [N] in [0, 1] and hits [N]; see `calibration_error`."""
    return value_of(partial(calibration_error, num_bins=num_bins), confidence, correct)


def similarity_std(images: Gaussian, texts: Gaussian) -> Tensor:
    """Standard deviation of z_image . z_text over samples of both, [N, D] and [M, D], [N, M], in float32 at least.

    Var = sum_d (mean_a^2 var_b + mean_b^2 var_a + var_a var_b), as two matrix products.
    """
    images, texts = images.at_least_float32(), texts.at_least_float32()
    var_a, var_b = images.var, texts.var
    variance = dot_products(images.mean.square(), var_b) + dot_products(var_a, texts.mean.square() + var_b)
    return variance.sqrt()


def more_uncertain(general: Tensor, specific: Tensor) -> Tensor:
    """1 where the general item is more uncertain, 1/2 for a tie, else 0, f64 [N]."""
    if general.shape != specific.shape:
        raise ValueError(
            f"general: must have the shape of specific, {tuple(specific.shape)} (got {tuple(general.shape)})"
        )
    return (general > specific).double() + (general == specific).double() / 2


def count_words(captions: Sequence[str]) -> Tensor:
    """i64 [N]; unlike tokens they depend on no tokenizer."""
    return torch.tensor([len(caption.split()) for caption in captions], dtype=torch.int64)
