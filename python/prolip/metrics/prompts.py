"""Fill prompt templates, and choose which prompts of a zero-shot classifier to keep.

The published alternatives to re-weighting assume that an uncertain prompt describes its class badly. So they drop the
prompts with the largest total variance (docs/specification.md, section 5). Each rule has its own type. The uniform
average of all prompts is `zero_shot.aggregate_prompts`.

C classes, K prompts per class, D dimensions, N images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import assert_never

import torch
import torch.nn.functional as F
from torch import Tensor

from prolip.errors import UserError
from prolip.gaussian import Gaussian
from prolip.metrics.zero_shot import PUBLISHED_LOGIT_SCALE, Classifier, weighted_sum, zero_shot_logits

# ---------------------------------------------------------------------------------------------------------------------
# Filters
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class WithinSpread:
    """Keeps total variances up to the class's mean plus `num_std` standard deviations (by_std_values_per_class).

    The standard deviation is the unbiased one. It is undefined for a single prompt, which is kept.
    """

    num_std: float = 0.0
    """May be negative."""


@dataclass(frozen=True, kw_only=True)
class SmallestOfAll:
    """Keeps the `count` smallest total variances among the prompts of all classes (by_std_values_all)."""

    count: int
    """At least 1; beyond C * K keeps all. Prompts that tie with the last one are kept too."""


@dataclass(frozen=True, kw_only=True)
class SmallestInClass:
    """Keeps the `count` smallest total variances of each class (by_ranking)."""

    count: int
    """At least 1; beyond K keeps all. Prompts that tie with the last one are kept too."""


@dataclass(frozen=True, kw_only=True)
class SmallestByClass:
    """Keeps the smallest total variances of each class, with a count per class (by_ranking_classwise)."""

    counts: tuple[int, ...]
    """One per class, each as in `SmallestInClass`; `greedy_counts` chooses them from labelled images."""


@dataclass(frozen=True, kw_only=True)
class UpToThreshold:
    """Keeps total variances up to a given one (by_abs_value)."""

    threshold: float
    """A total variance."""


PromptFilter = WithinSpread | SmallestOfAll | SmallestInClass | SmallestByClass | UpToThreshold
"""Which prompts to keep. If a rule keeps no prompt of a class, its most certain prompt is kept."""


def kept_prompts(total_var: Tensor, rule: PromptFilter) -> Tensor:
    """Which prompts a rule keeps, bool [C, K], at least one per class.

    Args:
        total_var: [C, K], the prompts' total variances.
        rule: which to keep.

    Raises:
        UserError: a count is below 1, the number of counts is not C, or a total variance is NaN.
    """
    if bool(total_var.isnan().any()):
        raise UserError("a prompt's total variance is NaN")
    # The most certain prompt always passes. Nothing else does where the threshold is NaN (a class with one prompt).
    return (total_var <= _thresholds(total_var, rule)[:, None]) | (total_var == total_var.amin(dim=1, keepdim=True))


def _thresholds(total_var: Tensor, rule: PromptFilter) -> Tensor:
    """The largest total variance that a rule keeps in each class, [C]; NaN where it is undefined."""
    num_classes, num_prompts = total_var.shape
    match rule:
        case WithinSpread():
            spread = total_var.std(dim=1) if num_prompts > 1 else total_var.new_full((num_classes,), torch.nan)
            return total_var.mean(dim=1) + rule.num_std * spread
        case SmallestOfAll():
            return _smallest(total_var.reshape(1, -1), (rule.count,)).expand(num_classes)
        case SmallestInClass():
            return _smallest(total_var, (rule.count,) * num_classes)
        case SmallestByClass():
            return _smallest(total_var, rule.counts)
        case UpToThreshold():
            return total_var.new_full((num_classes,), rule.threshold)
        case _:
            assert_never(rule)


def _smallest(rows: Tensor, counts: tuple[int, ...]) -> Tensor:
    """The count-th smallest value of each row, [R]; the largest if the row has fewer."""
    if len(counts) != len(rows):
        raise UserError(f"{len(counts)} counts of prompts to keep do not match {len(rows)} classes")
    if min(counts) < 1:
        raise UserError(f"the count of prompts to keep is {min(counts)}: it must be at least 1")
    place = torch.tensor([min(count, rows.shape[1]) - 1 for count in counts], device=rows.device)
    return rows.sort(dim=1).values.gather(1, place[:, None]).squeeze(1)


def filter_prompts(prompts: Gaussian, rule: PromptFilter) -> Classifier:
    """The classifier of the kept prompts, in float32 at least: normalised mean of their means, mean of their variances.

    Args:
        prompts: [C, K, D], unit means.
        rule: which to keep.

    Raises:
        UserError: as for `kept_prompts`.
    """
    prompts = prompts.at_least_float32()
    kept = kept_prompts(prompts.total_var, rule).to(prompts.mean)
    share = kept / kept.sum(dim=1, keepdim=True)
    weight = F.normalize(weighted_sum(share, prompts.mean), dim=-1)
    return Classifier(weight, weighted_sum(share, prompts.var))


def greedy_counts(
    prompts: Gaussian, image_mean: Tensor, labels: Tensor, *, on_progress: Callable[[int], object] | None = None
) -> SmallestByClass:
    """Choose greedily how many of its most certain prompts each class keeps, to classify labelled images best.

    All classes start with all prompts. Each class in turn takes the number that classifies the most images correctly
    (by means alone) while all other classes stay as they are; among equally good numbers the largest.

    The numbers are fitted to these images, with one free choice per class. *On these images* they always score at least
    as well as the uniform ensemble, even if the labels are noise. So that score is an optimistic bound, to compare with
    re-weighting, which sees no labels. Measure the result on other images.

    Args:
        prompts: [C, K, D], unit means.
        image_mean: [N, D], unit norm.
        labels: i64 [N].
        on_progress: called with 1 after each class.

    Raises:
        UserError: there is no image, or a label is not a class.
    """
    num_classes, num_prompts, _ = prompts.mean.shape
    if len(labels) == 0 or not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise UserError(f"labels must be from 0 to {num_classes - 1}, and there must be at least one")
    # Ensemble k of a class holds its prompts up to the k-th smallest total variance.
    total_var = prompts.total_var
    limits = total_var.sort(dim=1).values
    counts = [num_prompts] * num_classes
    ensemble = F.normalize(prompts.mean.mean(dim=1), dim=-1)
    logits = zero_shot_logits(image_mean, ensemble, logit_scale=PUBLISHED_LOGIT_SCALE)
    rows = torch.arange(len(labels), device=labels.device)
    for place in range(num_classes):
        kept = (total_var[place][None] <= limits[place][:, None]).to(prompts.mean)
        ensembles = F.normalize(kept @ prompts.mean[place], dim=-1)
        own = zero_shot_logits(image_mean, ensembles, logit_scale=PUBLISHED_LOGIT_SCALE)
        logits[:, place] = -torch.inf
        rival = logits.amax(dim=1)
        mine = labels == place
        # A tie counts against the image, as in `zero_shot.correct_within`.
        right_label = logits[rows, labels].clone()
        logits[rows, labels] = -torch.inf
        rival_of_others = logits.amax(dim=1)
        logits[rows, labels] = right_label
        found = (own[mine] > rival[mine, None]).sum(dim=0)
        alone = right_label[~mine] > rival_of_others[~mine]
        kept_right = (alone[:, None] & (right_label[~mine, None] > own[~mine])).sum(dim=0)
        score = found + kept_right
        best = num_prompts - 1 - int(score.flip(0).argmax())
        counts[place] = best + 1
        logits[:, place] = own[:, best]
        if on_progress is not None:
            on_progress(1)
    return SmallestByClass(counts=tuple(counts))


# ---------------------------------------------------------------------------------------------------------------------
# Templates
# ---------------------------------------------------------------------------------------------------------------------


def fill_templates(templates: Sequence[str], classnames: Sequence[str]) -> list[list[str]]:
    """Fill every template with every class name, one list per class. The placeholder is `{}` or `{c}`.

    Raises:
        UserError: there is no template or no class name, a template has no placeholder, or the templates are one text.
    """
    if isinstance(templates, str):
        raise UserError(f"templates is the text {templates!r}: give a list of templates")
    if not templates or not classnames:
        raise UserError(f"{len(templates)} templates and {len(classnames)} class names make no prompts")
    for template in templates:
        if "{}" not in template and "{c}" not in template:
            raise UserError(f"template {template!r} has no {{}} for the class name")
    return [[template.replace("{c}", "{}").replace("{}", name) for template in templates] for name in classnames]


def encode_prompts(
    templates: Sequence[str], classnames: Sequence[str], encode: Callable[[list[str]], Gaussian]
) -> Gaussian:
    """Fill every template with every class name, and encode all prompts at once, [C, K, D].

    Raises:
        UserError: as for `fill_templates`.
    """
    texts = [prompt for ensemble in fill_templates(templates, classnames) for prompt in ensemble]
    return encode(texts).unflatten(len(classnames), len(templates))
