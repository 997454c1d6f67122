"""Statistics of items that a row can name, so that its value can be computed again on resamples.

`items` is [N], `groups` i64 [N]; G groups. Groups without items are left out of every mean over groups.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from prolip.decisions.reliability import equal_mass_calibration_error
from prolip.decisions.selective import auroc, excess_risk_coverage
from prolip.metrics.statistics import spearman
from prolip.metrics.uncertainty import area_under_risk_coverage, expected_calibration_error

Statistic = Literal[
    "mean",
    "mean_of_chosen",
    "mean_per_group",
    "worst_group",
    "f1_macro",
    "rank_correlation",
    "risk_coverage",
    "excess_risk_coverage",
    "calibration_error",
    "equal_mass_error",
    "auroc",
]


def mean(items: Tensor, groups: Tensor) -> float:
    """Mean of the items; `groups` is not used."""
    return float(items.double().mean())


def mean_of_chosen(items: Tensor, groups: Tensor) -> float:
    """Mean of the items whose group is 1, the others' being 0; NaN without any.

    For a choice that each model makes by itself: the rows of all models then have the same items.
    """
    return float(items.double()[groups == 1].mean())


def group_means(items: Tensor, groups: Tensor) -> Tensor:
    """Mean of the items of each group that occurs, f64 [G], in order of the group numbers, which start at 0."""
    counts = torch.bincount(groups)
    sums = torch.bincount(groups, weights=items.double())
    return (sums / counts)[counts > 0]


def mean_per_group(items: Tensor, groups: Tensor) -> float:
    """Mean of the groups' means. For hits grouped by class, this is the mean per-class recall."""
    return float(group_means(items, groups).mean())


def worst_group(items: Tensor, groups: Tensor) -> float:
    """Smallest of the groups' means."""
    return float(group_means(items, groups).min())


def f1_macro(items: Tensor, groups: Tensor) -> float:
    """F1 of each class, averaged over the classes that are the label of at least one item, as in WILDS.

    `items` are predicted classes, whole numbers of any dtype; `groups` are labels.
    """
    predicted = items.long()
    num_classes = int(torch.maximum(predicted.max(), groups.max())) + 1
    hits = torch.bincount(groups[predicted == groups], minlength=num_classes).double()
    counts = [torch.bincount(classes, minlength=num_classes) for classes in (predicted, groups)]
    either = (counts[0] + counts[1]).double()
    return float((2 * hits / either)[counts[1] > 0].mean())


STATISTICS: Mapping[Statistic, Callable[[Tensor, Tensor], float]] = {
    "mean": mean,
    "mean_of_chosen": mean_of_chosen,
    "mean_per_group": mean_per_group,
    "worst_group": worst_group,
    "f1_macro": f1_macro,
    # `groups` holds a whole number per item, such as a caption's length.
    "rank_correlation": spearman,
    # `items` holds uncertainties or confidences, `groups` 1 for a right answer and 0 for a wrong one.
    "risk_coverage": area_under_risk_coverage,
    "excess_risk_coverage": excess_risk_coverage,
    "calibration_error": expected_calibration_error,
    "equal_mass_error": equal_mass_calibration_error,
    # `items` holds doubts, `groups` 1 for a wrong answer or an image from elsewhere, else 0.
    "auroc": auroc,
}
