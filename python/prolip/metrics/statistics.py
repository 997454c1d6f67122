"""Statistics of items and their bootstrap intervals; ranks and correlations.

A `Statistic` computes itself on many resamples at once, from how often each has each item. N items, R resamples, U
distinct values, G groups, Q queries, C candidates.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

_BLOCK = 2**22
"""Maximum counts (resamples times items) in memory."""

Statistic = Callable[..., Tensor]
"""From columns with one row per item, then the counts f64 [R, N] of the items in each resample, to f64 [R]."""


class Interval(NamedTuple):
    """With its 95 % interval."""

    value: float
    """Of all items."""
    low: float
    high: float


def value_of(statistic: Statistic, *columns: Tensor) -> float:
    """Of all items, each counted once. ValueError without items."""
    if len(columns[0]) == 0:
        raise ValueError("items: must not be empty")
    return float(statistic(*columns, torch.ones(1, len(columns[0]), dtype=torch.float64, device=columns[0].device)))


def bootstrap(statistic: Statistic, *columns: Tensor, num_resamples: int = 1000, seed: int = 0) -> Interval:
    """A statistic and its percentile interval over resamples of the items, drawn with replacement.

    Resamples on which the statistic is NaN (a correlation of equal values) are left out.

    Raises:
        ValueError: there is no item, or `num_resamples` is below 1.
    """
    draws = resample(statistic, *columns, num_resamples=num_resamples, seed=seed)
    return percentile_interval(value_of(statistic, *columns), draws)


def resample(statistic: Statistic, *columns: Tensor, num_resamples: int = 1000, seed: int = 0) -> Tensor:
    """The statistic on resamples of the items, f64 [R]; errors as for `bootstrap`.

    Draws depend only on the number of items and the seed, so statistics of the same items can be subtracted resample by
    resample.
    """
    blocks = _count_blocks(len(columns[0]), num_resamples, seed)
    return torch.cat([statistic(*columns, counts.to(columns[0].device)) for counts in blocks])


def percentile_interval(value: float, draws: Tensor) -> Interval:
    """The value with the interval of 95 % of its draws, [R], moved by their bias; NaN draws are left out."""
    kept = draws[~draws.isnan()].double()
    if len(kept) == 0:
        return Interval(value, math.nan, math.nan)
    finite = math.isfinite(value) and bool(kept.isfinite().all())
    if finite:
        # Noise enlarges a calibration error and lowers a worst group, and a resample has more of it than the items. So
        # all draws can be above the value; their mean shows this bias. Shares stay in [0, 1].
        moved = kept - (kept.mean() - value)
        kept = moved.clamp(kept.min().clamp(max=0), kept.max().clamp(min=1))
    # Linear interpolation between two infinite draws is NaN.
    between = "linear" if finite else "nearest"
    low, high = kept.quantile(kept.new_tensor([0.025, 0.975]), interpolation=between).tolist()
    return Interval(value, low, high)


def share_interval(share: float, num_items: float) -> Interval:
    """A share of independent items with its 95 % interval by Wilson's score.

    Unlike the bootstrap's, it has a width if all items count, or none.
    """
    noise = 1.96**2 / num_items
    middle, half = share + noise / 2, math.sqrt(noise * share * (1 - share) + noise**2 / 4)
    return Interval(share, max(0.0, (middle - half) / (1 + noise)), min(1.0, (middle + half) / (1 + noise)))


def _count_blocks(num_items: int, num_resamples: int, seed: int) -> Iterator[Tensor]:
    """Yield how often each resample has each item, f64 [R, N]."""
    if num_items < 1 or num_resamples < 1:
        raise ValueError(
            f"num_resamples: must be at least 1, as the number of items (got {num_resamples}, {num_items})"
        )
    generator = torch.Generator().manual_seed(seed)
    draws = (torch.randint(num_items, (num_items,), generator=generator) for _ in range(num_resamples))
    while some := list(islice(draws, max(1, _BLOCK // num_items))):
        yield torch.stack([torch.bincount(rows, minlength=num_items) for rows in some]).double()


# ---- Statistics -----------------------------------------------------------------------------------------------------


def mean(items: Tensor, counts: Tensor) -> Tensor:
    """Items may be infinite, such as a loss."""
    finite = bool(items.isfinite().all())
    sums = counts @ items.double() if finite else torch.where(counts > 0, counts * items, 0).sum(dim=1)
    return sums / counts.sum(dim=1)


def ratio(parts: Tensor, sizes: Tensor, counts: Tensor) -> Tensor:
    """Sum of the parts by sum of the sizes; NaN for nothing."""
    return (counts @ parts.double()) / (counts @ sizes.double())


def mean_of_chosen(items: Tensor, chosen: Tensor, counts: Tensor) -> Tensor:
    """Mean of the chosen items (1; others 0): models that choose differently share resamples."""
    return ratio(items * chosen, chosen, counts)


def mean_per_group(items: Tensor, groups: Tensor, counts: Tensor) -> Tensor:
    """Mean of the means of the groups that occur; for hits by class, the mean per-class recall."""
    return _group_means(items, groups, counts).nanmean(dim=1)


def worst_group(items: Tensor, groups: Tensor, counts: Tensor) -> Tensor:
    """Smallest mean of a group that occurs."""
    return _group_means(items, groups, counts).nan_to_num(nan=math.inf).amin(dim=1)


def f1_macro(predicted: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """F1 averaged over the classes that are an item's label, as in WILDS; both are class numbers of any dtype."""
    predicted, num_classes = predicted.long(), int(max(predicted.max(), labels.max())) + 1
    hits, answered, labelled = (
        _sums(classes, weights, num_classes)
        for classes, weights in ((labels, counts * (predicted == labels)), (predicted, counts), (labels, counts))
    )
    return (2 * hits / (answered + labelled)).where(labelled > 0, math.nan).nanmean(dim=1)


def rank_correlation(a: Tensor, b: Tensor, counts: Tensor) -> Tensor:
    """Spearman's, in [-1, 1]; equal values share their mean rank. NaN if a side is constant."""
    ranks = []
    for side in (a, b):
        of_value, place = _by_value(side, counts)
        ranks.append((of_value.cumsum(dim=1) - of_value / 2)[:, place])
    a, b = (side - (counts * side).sum(dim=1, keepdim=True) / counts.sum(dim=1, keepdim=True) for side in ranks)
    return (counts * a * b).sum(dim=1) / ((counts * a * a).sum(dim=1) * (counts * b * b).sum(dim=1)).sqrt()


def auroc(scores: Tensor, positive: Tensor, counts: Tensor) -> Tensor:
    """Probability that a positive item (1) scores higher than a negative one (0); a tie counts half.

    NaN if one kind is missing.
    """
    high, low = (_by_value(scores, counts * kind)[0] for kind in (positive.double(), 1 - positive.double()))
    return (high * (low.cumsum(dim=1) - low / 2)).sum(dim=1) / (high.sum(dim=1) * low.sum(dim=1))


def average_precision(scores: Tensor, positive: Tensor, counts: Tensor) -> Tensor:
    """Mean over positive items (1) of the share of positive ones among items that score at least as high.

    scikit-learn's. NaN without positive items.
    """
    hits, taken = (_by_value(-scores, weights)[0] for weights in (counts * positive.double(), counts))
    shares = (hits.cumsum(dim=1) / taken.cumsum(dim=1)).nan_to_num()  # 0 / 0 before the first item of a resample
    return (hits * shares).sum(dim=1) / hits.sum(dim=1)


def risk_coverage(uncertainty: Tensor, correct: Tensor, counts: Tensor) -> Tensor:
    """Mean, over k = 1..N, of the share of wrong items among the k most certain ones; in [0, 1], small is good.

    Equally uncertain items are averaged over all orders. Of c such items, a `share` is wrong, and w of n items before
    them. The k-th adds (w + share k) / (n + k): in sum w (H(n + c) - H(n)) + share (c - n (H(n + c) - H(n))), with
    harmonic numbers H.
    """
    count, _ = _by_value(uncertainty, counts)
    wrong, _ = _by_value(uncertainty, counts * (1 - correct.double()))
    before, wrong_before = count.cumsum(dim=1) - count, wrong.cumsum(dim=1) - wrong
    total = counts.sum(dim=1)
    inverse = 1 / torch.arange(1, int(total.max()) + 1, dtype=torch.float64, device=counts.device)
    harmonic = torch.cat([counts.new_zeros(1), inverse.cumsum(0)])
    steps = harmonic[(before + count).long()] - harmonic[before.long()]
    share = torch.where(count > 0, wrong / count, 0.0)
    return (wrong_before * steps + share * (count - before * steps)).sum(dim=1) / total


def excess_risk_coverage(uncertainty: Tensor, correct: Tensor, counts: Tensor) -> Tensor:
    """`risk_coverage` minus that of the best order, with all right items first, >= 0 (E-AURC, arXiv:1805.08206)."""
    return risk_coverage(uncertainty, correct, counts) - risk_coverage(1 - correct.double(), correct, counts)


def calibration_error(confidence: Tensor, correct: Tensor, counts: Tensor, num_bins: int = 15) -> Tensor:
    """Mean distance of accuracy from confidence over bins of equal width, weighted by items per bin; in [0, 1].

    A bin includes its upper edge; the first one also includes 0. ValueError if a confidence is outside [0, 1].
    """
    if not bool(((confidence >= 0) & (confidence <= 1)).all()):
        raise ValueError("confidences: must be in [0, 1]")
    confidence = confidence.double()
    places = ((confidence * num_bins).ceil().long() - 1).clamp_min(0)
    return _sums(places, counts * (correct.double() - confidence), num_bins).abs().sum(dim=1) / counts.sum(dim=1)


def equal_mass_error(confidence: Tensor, correct: Tensor, counts: Tensor, num_bins: int = 15) -> Tensor:
    """`calibration_error` over bins of equally many items, give or take one (arXiv:2012.08668).

    Equally confident items are divided among bins in proportion, so their order has no effect.
    """
    size, _ = _by_value(confidence, counts)
    gap, _ = _by_value(confidence, counts * (correct.double() - confidence.double()))
    ends, totals = size.cumsum(dim=1), counts.sum(dim=1)
    edges = torch.stack(
        [torch.linspace(0, float(total), num_bins + 1, dtype=torch.float64).round() for total in totals]
    )
    edges = edges.to(size.device)
    place = torch.searchsorted(ends, edges).clamp_max(size.shape[1] - 1)
    # The share of equally confident items at an edge that lie below it; 0 / 0 at the start.
    share = ((edges - (ends - size).gather(1, place)) / size.gather(1, place)).nan_to_num()
    below = (gap.cumsum(dim=1) - gap).gather(1, place) + share * gap.gather(1, place)
    return below.diff(dim=1).abs().sum(dim=1) / totals


STATISTICS: Mapping[str, Statistic] = {
    "mean": mean,
    "mean_of_chosen": mean_of_chosen,
    "mean_per_group": mean_per_group,
    "worst_group": worst_group,
    "f1_macro": f1_macro,
    "rank_correlation": rank_correlation,
    "risk_coverage": risk_coverage,
    "excess_risk_coverage": excess_risk_coverage,
    "calibration_error": calibration_error,
    "equal_mass_error": equal_mass_error,
    "auroc": auroc,
    "average_precision": average_precision,
}


def _group_means(items: Tensor, groups: Tensor, counts: Tensor) -> Tensor:
    """Mean of each group, [R, G]; NaN for groups without items."""
    num_groups = int(groups.max()) + 1
    return _sums(groups, counts * items, num_groups) / _sums(groups, counts, num_groups)


def _sums(places: Tensor, weights: Tensor, size: int) -> Tensor:
    """Sums of weights [R, N] by place, [R, size]."""
    return weights.new_zeros(len(weights), size).index_add_(1, places, weights)


def _by_value(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of the weights of equal values, ascending, [R, U], and the place of each item's value, [N]."""
    if bool(values.isnan().any()):
        raise ValueError("values: must not be NaN")
    distinct, place = torch.unique(values, return_inverse=True)
    return _sums(place, weights, len(distinct)), place


# ---- Ranks and correlations -----------------------------------------------------------------------------------------


def rank_of_first_correct(scores: Tensor, correct: Tensor) -> Tensor:
    """Number of wrong candidates with scores [Q, C] at least as high as the best correct one, i64 [Q], from 0.

    Ties count against the query, so a collapsed model (all scores equal) scores nothing. Correct candidates, bool [Q,
    C], do not count against each other. ValueError if a score is NaN, or a query has no correct candidate.
    """
    if bool(torch.isnan(scores).any()):
        raise ValueError("scores: must not be NaN")
    if not bool(correct.any(dim=1).all()):
        raise ValueError("correct: must have a correct candidate for each query")
    best = scores.masked_fill(~correct, -math.inf).amax(dim=1, keepdim=True)
    return ((scores >= best) & ~correct).sum(dim=1)


def sorted_means(keys: Tensor, values: Tensor) -> Tensor:
    """The values, [N], in ascending order of their keys, f64 [N]; those of equal keys become their mean.

    ValueError if a key is NaN.
    """
    _, place = _by_value(keys, torch.empty(0, len(keys), device=keys.device))
    sizes = torch.bincount(place)
    return (torch.bincount(place, weights=values.double()) / sizes).repeat_interleave(sizes)


def pearson(a: Tensor, b: Tensor) -> float:
    """In [-1, 1]; NaN if a side is constant or has fewer than two values."""
    if a.numel() < 2 or bool((a == a[0]).all()) or bool((b == b[0]).all()):
        return math.nan
    return float(torch.corrcoef(torch.stack([a.double(), b.double()]))[0, 1])


def spearman(a: Tensor, b: Tensor) -> float:
    """Of all items; see `rank_correlation`."""
    return value_of(rank_correlation, a, b)
