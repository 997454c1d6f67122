"""Prompts of a zero-shot classifier: where they come from, and which of them to keep (SPEC §5).

An uncertain prompt fits a class badly, so the published rivals of re-weighting drop the prompts of the largest total
variance. Each rule is a type of its own. The uniform average of all prompts is `zero_shot.aggregate_prompts`.
C classes, K prompts a class, D dimensions, N images.
"""

from __future__ import annotations

import runpy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, assert_never

import torch
import torch.nn.functional as F
from torch import Tensor

from prolip.eval.zero_shot import Classifier, zero_shot_logits
from prolip.gaussian import Gaussian

PLAIN_TEMPLATES = ("{}", "a picture of {}", "an emoji of {}")
"""Templates of the emoji captions that are filled with one phrase."""
CHAINED_TEMPLATES = ("{}", "a picture: {}", "{}, emoji")
"""Templates filled with the phrase and more general ones: "blowfish, marine animal, animals and nature"."""

# ---------------------------------------------------------------------------------------------------------------------
# The five rules
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class WithinSpread:
    """Keeps total variances up to the class's mean plus `num_std` of its standard deviations (by_std_values_per_class).

    The deviation is the unbiased one; of a single prompt it does not exist, and that prompt is kept.
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
    """Keeps the smallest total variances of each class, as many as the class is given (by_ranking_classwise)."""

    counts: tuple[int, ...]
    """One a class, each as in `SmallestInClass`; `greedy_counts` chooses them from labelled images."""


@dataclass(frozen=True, kw_only=True)
class UpToThreshold:
    """Keeps total variances up to a given one (by_abs_value)."""

    threshold: float
    """A total variance."""


PromptFilter = WithinSpread | SmallestOfAll | SmallestInClass | SmallestByClass | UpToThreshold
"""Which prompts to keep. A class of which a rule keeps none keeps its most certain one."""


def kept_prompts(total_var: Tensor, rule: PromptFilter) -> Tensor:
    """Which prompts a rule keeps, bool [C, K], at least one a class.

    Args:
        total_var: [C, K], the prompts' total variances.
        rule: see its type.

    Raises:
        ValueError: a count is below 1, there is not one a class, or a total variance is NaN.
    """
    if bool(total_var.isnan().any()):
        raise ValueError("a prompt's total variance is not a number")
    # The most certain prompt passes wherever another one does. A threshold of NaN, the deviation of a single prompt,
    # lets nothing pass.
    return (total_var <= thresholds(total_var, rule)[:, None]) | (total_var == total_var.amin(dim=1, keepdim=True))


def thresholds(total_var: Tensor, rule: PromptFilter) -> Tensor:
    """The largest total variance that a rule lets each class keep, [C]; NaN where it is not defined.

    Raises:
        ValueError: a count is below 1, or there is not one a class.
    """
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
    """The count-th smallest value of each row, or its largest where it has fewer, [R]."""
    if len(counts) != len(rows):
        raise ValueError(f"there are {len(counts)} counts of prompts to keep for {len(rows)} classes")
    if min(counts) < 1:
        raise ValueError(f"{min(counts)} prompts cannot be kept: it must be at least 1")
    place = torch.tensor([min(count, rows.shape[1]) - 1 for count in counts], device=rows.device)
    return rows.sort(dim=1).values.gather(1, place[:, None]).squeeze(1)


def filter_prompts(prompts: Gaussian, rule: PromptFilter) -> Classifier:
    """The ensemble of the kept prompts: normalised mean of their means, mean of their variances.

    Args:
        prompts: [C, K, D], unit means.
        rule: which are kept.

    Raises:
        ValueError: as `kept_prompts`.
    """
    kept = kept_prompts(prompts.total_var, rule).to(prompts.mean)
    share = kept / kept.sum(dim=1, keepdim=True)
    weight = F.normalize(torch.einsum("ck,ckd->cd", share, prompts.mean), dim=-1)
    return Classifier(weight, torch.einsum("ck,ckd->cd", share, prompts.var))


def greedy_counts(
    prompts: Gaussian, image_mean: Tensor, labels: Tensor, *, on_progress: Callable[[int], object] | None = None
) -> SmallestByClass:
    """How many of its most certain prompts each class had best keep, class after class, to classify labelled images.

    It starts from all prompts of all classes. Each class in turn takes the number that gets the most images right
    (by means alone), all other classes being as they are by then; of equally good numbers the largest.

    Bias: the numbers are fitted to these very images, one free choice a class. By construction they score at least as
    well as the uniform ensemble *on these images*, even where the labels are noise, so that score is no estimate of
    anything: it is the optimistic bound that re-weighting, which sees no labels, is compared with. Score the result
    on other images.

    Args:
        prompts: [C, K, D], unit means.
        image_mean: [N, D], unit norm.
        labels: i64 [N].
        on_progress: called with 1 after every class.

    Raises:
        ValueError: there is no image, or a label is not a class.
    """
    num_classes, num_prompts, _ = prompts.mean.shape
    if len(labels) == 0 or not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise ValueError(f"labels must be from 0 to {num_classes - 1}, and there must be one")
    # Ensemble k of a class: its prompts up to the k-th smallest total variance.
    total_var = prompts.total_var
    limits = total_var.sort(dim=1).values
    counts = [num_prompts] * num_classes
    logits = zero_shot_logits(image_mean, F.normalize(prompts.mean.mean(dim=1), dim=-1))
    rows = torch.arange(len(labels), device=labels.device)
    for place in range(num_classes):
        kept = (total_var[place][None] <= limits[place][:, None]).to(prompts.mean)
        ensembles = F.normalize(kept @ prompts.mean[place], dim=-1)
        own = zero_shot_logits(image_mean, ensembles)
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
# Class names and templates
# ---------------------------------------------------------------------------------------------------------------------


def imagenet_classnames() -> list[str]:
    """The 1,000 class names of ImageNet that CLIP is evaluated with, in the order of the labels; from open_clip.

    Raises:
        FileNotFoundError: open_clip is not installed.
    """
    return list(_open_clip_names()["IMAGENET_CLASSNAMES"])


def imagenet_templates(kind: Literal["all", "simple"] = "all") -> list[str]:
    """CLIP's 80 prompt templates for ImageNet, or the seven that do most of the work, with `{}` for the class.

    Raises:
        FileNotFoundError: open_clip is not installed.
    """
    names = {"all": "OPENAI_IMAGENET_TEMPLATES", "simple": "SIMPLE_IMAGENET_TEMPLATES"}
    return [template("{}") for template in _open_clip_names()[names[kind]]]


def fill_templates(templates: Sequence[str], classnames: Sequence[str]) -> list[list[str]]:
    """Every template filled with every class name, one list a class. The place of the name is `{}` or `{c}`.

    Raises:
        ValueError: there is no template or no class name, or a template has no place for the name.
    """
    if not templates or not classnames:
        raise ValueError(f"{len(templates)} templates and {len(classnames)} class names make no prompts")
    for template in templates:
        if "{}" not in template and "{c}" not in template:
            raise ValueError(f"template {template!r} has no {{}} for the class name")
    return [[template.replace("{c}", "{}").replace("{}", name) for template in templates] for name in classnames]


def _open_clip_names() -> dict[str, Any]:
    """The variables of open_clip's module of names, run by itself: importing the package would load its models."""
    spec = find_spec("open_clip")
    folders = spec.submodule_search_locations if spec is not None else None
    path = Path(folders[0]) / "zero_shot_metadata.py" if folders else None
    if path is None or not path.is_file():
        raise FileNotFoundError("ImageNet's names come with open_clip, which is missing: pip install open_clip_torch")
    return runpy.run_path(str(path))
