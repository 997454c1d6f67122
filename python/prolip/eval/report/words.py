"""The page's numbers and sentences, worked out from the results so that they say what came out, not what was hoped."""

import math

from prolip.eval.emoji.results import EmojiResults, LevelFigures, SetFigures
from prolip.eval.uncertainty import AccuracyBins

LEVEL_NAMES = {
    "image": "the picture",
    "name": "name",
    "subgroup": "subgroup",
    "group": "group",
    "picture": "“a picture”",
}
DESIGN_NAMES = {
    "openmoji": "OpenMoji",
    "goog": "Noto (Goog)",
    "twtr": "Twemoji (Twtr)",
}
ORDERED = 0.6
"""A share above this counts as an order; a coin gives 0.5."""
THIN = "\u202f"
"""A narrow space without a line break."""
FALLS = -0.3
"""A Pearson correlation below this counts as "accuracy falls with uncertainty"."""


def percent(value: float, decimals: int = 1) -> str:
    """A share as per cent that no line break parts, "n/a" for NaN."""
    return "n/a" if not math.isfinite(value) else f"{100 * value:.{decimals}f}{THIN}%"


def signed(value: float, decimals: int = 2) -> str:
    """A number with its sign and a real minus, "n/a" for NaN."""
    return "n/a" if not math.isfinite(value) else f"{value:+.{decimals}f}".replace("-", "−")


def relative(value: float) -> str:
    """A ratio as a signed percentage from 1: 1.012 is "+1.2 %"."""
    return "n/a" if not math.isfinite(value) else f"{signed(100 * (value - 1), 1)}{THIN}%"


def set_label(name: str) -> str:
    """What a set holds: "held-out emoji, OpenMoji"."""
    kind, _, design = name.partition("-")
    emoji = {"test": "held-out emoji", "val": "validation emoji", "design": "trained emoji, held-out design"}[kind]
    return f"{emoji}, {DESIGN_NAMES.get(design, design)}"


def sentence_case(text: str) -> str:
    """The text with its first letter large and the others as they are."""
    return text[:1].upper() + text[1:]


def findings(results: EmojiResults) -> list[str]:
    """What was looked for and not found, or found to be small."""
    trained = results.trained
    return [
        _effect_size(trained.unseen_names),
        _length(trained.unseen_names),
        _order_unseen(trained.unseen_names),
        *_accuracy(trained.sets),
        *_views(trained.sets),
        _variances_in_scores(trained.sets),
    ]


def pearson_sentence(bins: AccuracyBins) -> str:
    """Whether accuracy falls over the bins, in words."""
    if not math.isfinite(bins.pearson):
        return "no correlation: all bins are equal"
    if bins.pearson < FALLS:
        verdict = "accuracy falls with uncertainty"
    else:
        verdict = "accuracy rises with uncertainty" if bins.pearson > -FALLS else "no clear trend"
    return f"Pearson {signed(bins.pearson)}: {verdict}"


def _effect_size(levels: LevelFigures) -> str:
    last = levels.uncertainty.relative[-1]
    return (
        "The order is small in size. The mean uncertainty of a held-out emoji's name captions is "
        f"{relative(last)} from that of “a picture” captions, and Spearman's correlation with generality is "
        f"{signed(levels.uncertainty.spearman)}."
    )


def _length(levels: LevelFigures) -> str:
    tokens = ", ".join(
        f"{LEVEL_NAMES[level]} {mean:.1f}" for level, mean in zip(levels.levels, levels.mean_tokens, strict=True)
    )
    pair = levels.pairs[0]
    return (
        f"Caption length goes along with the level (mean tokens: {tokens}), so part of the order may be length. "
        f"Among name captions alone, uncertainty correlates with length at {signed(levels.length_spearman)}. "
        f"Where the {pair.specific} caption is no longer than the {pair.general} caption ({pair.num_not_longer} pairs "
        f"with unseen names), the {pair.general} is the more uncertain one in {percent(pair.share_not_longer)}."
    )


def _order_unseen(levels: LevelFigures) -> str:
    shares = ", ".join(
        f"{LEVEL_NAMES[pair.general]} over {LEVEL_NAMES[pair.specific]} {percent(pair.share)}" for pair in levels.pairs
    )
    holds = all(pair.share > ORDERED for pair in levels.pairs)
    by_length = holds and not all(pair.share_not_longer > ORDERED for pair in levels.pairs)
    outcome = "it holds for each pair of levels" if holds else "it does not hold for every pair of levels"
    return f"Where names are unseen, nothing trained the order directly, and {outcome}: {shares} (a coin: 50 %)." + (
        " Among pairs whose specific caption is no longer, it does not: length may explain it." if by_length else ""
    )


def _accuracy(sets: list[SetFigures]) -> list[str]:
    missing = [
        f"{what} on {set_label(figures.name)} ({signed(bins.pearson)})"
        for figures in sets
        for what, bins in (("the group", figures.group_bins), ("retrieval", figures.retrieval_bins))
        if bins is not None and not bins.pearson < FALLS
    ]
    if not missing:
        return []
    return [f"Accuracy does not fall with picture uncertainty for {'; '.join(missing)} (Pearson over ten bins)."]


def _views(sets: list[SetFigures]) -> list[str]:
    last = sets[-1]
    return [
        f"A picture {view.name} is more uncertain than itself whole in only {percent(view.share_more_uncertain)} of "
        f"cases on {set_label(last.name)}."
        for view in last.views
        if not view.trained and not view.share_more_uncertain > ORDERED
    ]


def _variances_in_scores(sets: list[SetFigures]) -> str:
    last = sets[-1]
    retrieval = last.image_to_text.recall_at_10 - last.image_to_text_by_mean.recall_at_10
    group = last.group_with_var.top1 - last.group.top1
    return (
        f"Variances change little in scores: on {set_label(last.name)} they move image-to-text R@10 by "
        f"{signed(100 * retrieval, 1)} points and the group's accuracy by {signed(100 * group, 1)} points against "
        "means alone."
    )
