"""Format the report's numbers, and write its sentences from the results, also where they are disappointing."""

import math

from prolip.demo.suite.results import EmojiResults, LevelFigures, Range, SetFigures
from prolip.metrics.uncertainty import AccuracyBins
from prolip.report.charts import Spread

LEVEL_NAMES = {
    "image": "the image",
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
"""A share above this counts as an order; chance is 0.5."""
THIN = "\u202f"
"""A narrow space without a line break."""
FALLS = -0.3
"""A Pearson correlation below this counts as "accuracy falls with uncertainty"."""
SMALL = 0.1
"""A relative difference of uncertainties below this is called small."""


def percent(value: float, decimals: int = 1) -> str:
    """Format a share in percent, without a line break; "n/a" for NaN."""
    return "n/a" if not math.isfinite(value) else f"{100 * value:.{decimals}f}{THIN}%"


def signed(value: float, decimals: int = 2) -> str:
    """Format a number with its sign, with a real minus; "n/a" for NaN."""
    return "n/a" if not math.isfinite(value) else f"{value:+.{decimals}f}".replace("-", "−")


def relative(value: float) -> str:
    """Format a ratio as a signed percentage above 1: 1.012 is "+1.2 %"."""
    return "n/a" if not math.isfinite(value) else f"{signed(100 * (value - 1), 1)}{THIN}%"


def span(low: float, high: float) -> str:
    """Format a range of shares in percent, without a line break: "79–103 %"."""
    return f"{100 * low:.0f}–\u2060{100 * high:.0f}{THIN}%" if math.isfinite(low + high) else "n/a"


def percent_range(figure: Range) -> str:
    """Format a share with its range: "91.0 % (88 to 94)"; "n/a" for NaN."""
    if not math.isfinite(figure.low + figure.high):
        return percent(figure.value)
    return f"{percent(figure.value)} ({100 * figure.low:.0f} to {100 * figure.high:.0f})"


def number_range(figure: Range) -> str:
    """Format a number with its range; "n/a" for NaN."""
    if not math.isfinite(figure.value):
        return "n/a"
    return f"{figure.value:.2f} ({figure.low:.2f} to {figure.high:.2f})".replace("-", "−")


def percent_row(label: str, mean: float, low: float, high: float, untrained: float) -> Spread:
    """Return a row of a chart in percent, from shares."""
    return Spread(label=label, mean=100 * mean, low=100 * low, high=100 * high, untrained=100 * untrained)


def set_label(name: str) -> str:
    """Describe a set: "held-out emoji, OpenMoji"."""
    kind, _, design = name.partition("-")
    emoji = {"test": "held-out emoji", "val": "validation emoji", "design": "trained emoji, held-out design"}[kind]
    return f"{emoji}, {DESIGN_NAMES.get(design, design)}"


def sentence_case(text: str) -> str:
    """Capitalise the first letter and leave the others alone."""
    return text[:1].upper() + text[1:]


def findings(results: EmojiResults) -> list[str]:
    """List effects that were not found or are small."""
    trained, random = results.trained, results.random
    return [
        _effect_size(trained.unseen_names, random.unseen_names),
        _length(trained.unseen_names, random.unseen_names),
        _order_unseen(trained.unseen_names, random.unseen_names),
        *_inclusion(trained.sets[0], random.sets[0]),
        *_accuracy(trained.sets, random.sets),
        *_views(trained.sets, random.sets),
        _variances_in_scores(trained.sets, random.sets),
    ]


def pearson_sentence(bins: AccuracyBins, untrained: AccuracyBins) -> str:
    """Say whether accuracy falls over the bins, beside the untrained model's correlation."""
    before = f"untrained {signed(untrained.pearson)}"
    if not math.isfinite(bins.pearson):
        return f"no correlation, all bins are equal ({before})"
    if bins.pearson < FALLS:
        verdict = "accuracy falls with uncertainty"
    else:
        verdict = "accuracy rises with uncertainty" if bins.pearson > -FALLS else "no clear trend"
    return f"Pearson {signed(bins.pearson)} ({before}): {verdict}"


def _effect_size(levels: LevelFigures, untrained: LevelFigures) -> str:
    ours, theirs = levels.uncertainty, untrained.uncertainty
    small = "The effect is small. " if abs(ours.relative[-1]) < SMALL else ""
    return (
        f"{small}The mean uncertainty of a held-out emoji's name captions differs from that of “a picture” captions by "
        f"{relative(ours.relative[-1])} (untrained {relative(theirs.relative[-1])}), and Spearman's correlation "
        f"with generality is {signed(ours.spearman)} (untrained {signed(theirs.spearman)})."
    )


def _length(levels: LevelFigures, untrained: LevelFigures) -> str:
    tokens = ", ".join(
        f"{LEVEL_NAMES[level]} {mean:.1f}" for level, mean in zip(levels.levels, levels.mean_tokens, strict=True)
    )
    pair = levels.pairs[0]
    return (
        f"Caption length varies with the level (mean tokens: {tokens}), so length may explain part of the order. "
        f"Among name captions alone, uncertainty correlates with length at {signed(levels.length_spearman)} "
        f"(untrained {signed(untrained.length_spearman)}). "
        f"Where the {pair.specific} caption is no longer than the {pair.general} caption ({pair.num_not_longer} pairs "
        f"with unseen names), the {pair.general} is the more uncertain one in {percent(pair.share_not_longer)} "
        f"(untrained {percent(untrained.pairs[0].share_not_longer)})."
    )


def _order_unseen(levels: LevelFigures, untrained: LevelFigures) -> str:
    shares = ", ".join(
        f"{LEVEL_NAMES[ours.general]} over {LEVEL_NAMES[ours.specific]} {percent(ours.share)} "
        f"(not longer {percent(ours.share_not_longer)}; untrained {percent(theirs.share)})"
        for ours, theirs in zip(levels.pairs, untrained.pairs, strict=True)
    )
    holds = all(pair.share > ORDERED for pair in levels.pairs)
    by_length = holds and not all(pair.share_not_longer > ORDERED for pair in levels.pairs)
    outcome = "it holds for each pair of levels" if holds else "it does not hold for every pair of levels"
    return f"Training never asked for this order of unseen names, and {outcome}: {shares} (chance: 50 %)." + (
        " Among pairs whose specific caption is no longer it does not, so length may explain it." if by_length else ""
    )


def _inclusion(figures: SetFigures, untrained: SetFigures) -> list[str]:
    larger = [
        f"{LEVEL_NAMES[ours.specific]} ⊂ {LEVEL_NAMES[ours.general]} {1000 * theirs.mean_score:.2f} against "
        f"{1000 * ours.mean_score:.2f}, positive for {percent(theirs.share_positive, 0)} against "
        f"{percent(ours.share_positive, 0)}"
        for ours, theirs in zip(figures.inclusion_chain, untrained.inclusion_chain, strict=True)
        if theirs.mean_score > ours.mean_score
    ]
    if not larger:
        return []
    return [
        f"The mean of H does not measure how well the order was learnt: on {set_label(figures.name)} it is larger for "
        f"the untrained model in {'; '.join(larger)} (H × 1000, untrained against trained)."
    ]


def _accuracy(sets: list[SetFigures], untrained: list[SetFigures]) -> list[str]:
    missing = [
        f"{what} on {set_label(figures.name)} ({signed(ours.pearson)}, untrained {signed(theirs.pearson)})"
        for figures, other in zip(sets, untrained, strict=True)
        for what, ours, theirs in (
            ("the group", figures.group_bins, other.group_bins),
            ("retrieval", figures.retrieval_bins, other.retrieval_bins),
        )
        if ours is not None and theirs is not None and not ours.pearson < FALLS
    ]
    if not missing:
        return []
    return [f"Accuracy does not fall with image uncertainty for {'; '.join(missing)} (Pearson over ten bins)."]


def _views(sets: list[SetFigures], untrained: list[SetFigures]) -> list[str]:
    last = sets[-1]
    return [
        f"An image {view.name} is more uncertain than the whole image in only {percent(view.share_more_uncertain)} "
        f"(untrained {percent(before.share_more_uncertain)}) of cases on {set_label(last.name)}."
        for view, before in zip(last.views, untrained[-1].views, strict=True)
        if not view.trained and not view.share_more_uncertain > ORDERED
    ]


def _variances_in_scores(sets: list[SetFigures], untrained: list[SetFigures]) -> str:
    (retrieval, group), (retrieval_before, group_before) = (
        (
            signed(100 * (last.image_to_text.recall_at_10 - last.image_to_text_by_mean.recall_at_10), 1),
            signed(100 * (last.group_with_var.top1 - last.group.top1), 1),
        )
        for last in (sets[-1], untrained[-1])
    )
    return (
        f"Variances change scores little. Compared with means alone, on {set_label(sets[-1].name)} they change "
        f"image-to-text R@10 by {retrieval} points (untrained {retrieval_before}) and the group's accuracy by {group} "
        f"points (untrained {group_before})."
    )
