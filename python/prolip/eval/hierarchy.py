"""How far pictures and captions lie inside more general ones (SPEC §4). N items, D dimensions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from prolip.gaussian import Gaussian, inclusion_score


@dataclass(frozen=True, kw_only=True)
class Inclusion:
    """How far the items of one level lie inside those of another."""

    specific: str
    general: str
    mean_score: float
    """Exact H averaged over items and dimensions. Its sign depends on the variances alone (SPEC §4): positive when the
    general side is wider; it grows with the distance of the means, so it never says that the means agree."""
    share_positive: float
    """Share of items whose H, summed over dimensions, is positive, in [0, 1]; a tie counts half."""


def inclusion(specific: Gaussian, general: Gaussian, names: tuple[str, str]) -> Inclusion:
    """Inclusion of each specific item in the general item of the same row.

    Args:
        specific: [N, D].
        general: [N, D].
        names: of the specific and the general level.
    """
    if len(specific.mean) == 0:
        return Inclusion(specific=names[0], general=names[1], mean_score=math.nan, share_positive=math.nan)
    score = inclusion_score(specific, general).double()
    total = score.sum(dim=-1)
    return Inclusion(
        specific=names[0],
        general=names[1],
        mean_score=float(score.mean()),
        share_positive=float((total > 0).double().mean() + (total == 0).double().mean() / 2),
    )


def inclusion_chain(levels: Sequence[tuple[str, Gaussian]]) -> list[Inclusion]:
    """Inclusion of each level in the next, the most specific level first: picture, name, subgroup, group."""
    return [
        inclusion(specific, general, (name, general_name))
        for (name, specific), (general_name, general) in pairwise(levels)
    ]


def inclusion_in_each(specific: tuple[str, Gaussian], levels: Sequence[tuple[str, Gaussian]]) -> list[Inclusion]:
    """Inclusion of one level (the pictures) in each of the others (the captions from specific to general)."""
    return [inclusion(specific[1], general, (specific[0], name)) for name, general in levels]
