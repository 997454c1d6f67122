"""How well a score of doubt tells wrong answers from right ones, or unknown items from known ones. N items."""

from __future__ import annotations

import torch
from torch import Tensor

from prolip.metrics import statistics
from prolip.metrics.statistics import sorted_means, value_of


def auroc(doubt: Tensor, positive: Tensor) -> float:
    """Probability that a positive item has the larger doubt; a tie counts half. NaN if one kind is missing.

    Args:
        doubt: [N].
        positive: [N], 0 or 1 (or bool): whether the answer is wrong, or the item is from elsewhere.
    """
    return value_of(statistics.auroc, doubt, positive)


def risk_curve(doubt: Tensor, correct: Tensor, num_points: int = 40) -> tuple[Tensor, Tensor]:
    """Shares of items that are answered, and of wrong answers among them, f64 [points] each, for a chart.

    The least doubtful items are answered; equally doubtful ones are averaged over all their orders. The first point is
    5 % of the items, since fewer say little.

    Args:
        doubt: [N].
        correct: [N], 0 or 1 (or bool).
        num_points: largest number of points.
    """
    count = len(correct)
    places = torch.linspace(max(1, count // 20), count, min(num_points, count)).round().long()
    wrong = sorted_means(doubt, 1 - correct.double()).cumsum(0)
    return places.double() / count, wrong[places - 1] / places


def excess_risk_coverage(doubt: Tensor, correct: Tensor) -> float:
    """Area under the risk-coverage curve minus that of the best order, >= 0 (E-AURC, arXiv:1805.08206).

    The best order has all right answers first. So unlike the area itself, this does not grow with the error rate alone.

    Args:
        doubt: [N].
        correct: [N], 0 or 1 (or bool).
    """
    return value_of(statistics.excess_risk_coverage, doubt, correct)
