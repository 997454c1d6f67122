"""Fill prompt templates, and choose which prompts of a zero-shot classifier to keep.

The published filters drop the prompts with the largest total variance (docs/specification.md, section 5). C classes, K
prompts per class, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from prolip.errors import UserError, check
from prolip.gaussian import Gaussian
from prolip.metrics.config import FilterConfig
from prolip.metrics.zero_shot import Classifier, aggregate_prompts, weighted_sum

_NO_FILTERS = FilterConfig()


def within_spread(total_var: Tensor, num_std: float = 0.0) -> Tensor:
    """Each class's mean total variance plus `num_std` standard deviations, [C] (by_std_values_per_class).

    NaN for a single prompt, whose (unbiased) deviation is undefined; `kept_prompts` then keeps it.
    """
    num_prompts = total_var.shape[1]
    spread = total_var.std(dim=1) if num_prompts > 1 else torch.full_like(total_var[:, 0], torch.nan)
    return total_var.mean(dim=1) + num_std * spread


def smallest(total_var: Tensor, counts: int | Sequence[int]) -> Tensor:
    """The count-th smallest total variance of each class, [C]; the largest if it has fewer (by_ranking, or
    by_ranking_classwise with a count per class; by_std_values_all for one row with the prompts of all classes).

    Raises:
        UserError: a count is below 1, or there is not one for each class.
    """
    places = torch.as_tensor(counts, device=total_var.device) - 1
    check(
        int(places.min()) >= 0 and places.numel() in {1, len(total_var)},
        "counts",
        "must be at least 1, one per class or one for all",
        counts,
    )
    places = places.clamp_max(total_var.shape[1] - 1).expand(len(total_var))
    return total_var.sort(dim=1).values.gather(1, places[:, None])[:, 0]


def kept_prompts(total_var: Tensor, limit: Tensor | float) -> Tensor:
    """Which prompts a filter keeps, bool [C, K]: those up to the limit, and the most certain one of each class.

    Args:
        total_var: [C, K].
        limit: [C], or one for all classes (by_abs_value).
    """
    limits = torch.as_tensor(limit, dtype=total_var.dtype, device=total_var.device).expand(len(total_var))
    return (total_var <= limits[:, None]) | (total_var == total_var.amin(dim=1, keepdim=True))


def filter_prompts(prompts: Gaussian, limit: Tensor | float) -> Classifier:
    """The classifier of the kept prompts, in float32 at least.

    Args:
        prompts: [C, K, D], unit means.
        limit: as for `kept_prompts`.
    """
    prompts = prompts.at_least_float32()
    kept = kept_prompts(prompts.total_var, limit).to(prompts.mean)
    share = kept / kept.sum(dim=1, keepdim=True)
    return Classifier(F.normalize(weighted_sum(share, prompts.mean), dim=-1), weighted_sum(share, prompts.var))


def greedy_counts(prompts: Gaussian, means: Tensor, labels: Tensor) -> Tensor:
    """The number of most certain prompts with which each class has the best recall, i64 [C]; the smallest of equals.

    Args:
        prompts: [C, K, D]
        means: [N, D], of images.
        labels: i64 [N], which are then also scored, as in the released `greedy`.
    """
    total_var = prompts.at_least_float32().total_var
    recalled = []
    for count in range(1, total_var.shape[1] + 1):
        weight = filter_prompts(prompts, smallest(total_var, count)).weight
        correct = (means.to(weight) @ weight.T).argmax(dim=1) == labels
        recalled.append(labels[correct].bincount(minlength=len(total_var)))
    return torch.stack(recalled).argmax(dim=0) + 1


def unweighted_classifiers(
    prompts: Gaussian, filters: FilterConfig = _NO_FILTERS, scored: tuple[Tensor, Tensor] | None = None
) -> dict[str, Classifier]:
    """The classifiers with which re-weighted prompts, [C, K, D], are compared: even weights, two filters, `filters`.

    `scored` are images' means [N, D] and labels i64 [N], for the filter `greedy`.
    """
    total_var = prompts.at_least_float32().total_var
    limits = {
        "prompts up to the mean uncertainty": within_spread(total_var),
        "the more certain half": smallest(total_var, max(1, total_var.shape[1] // 2)),
    }
    rules = {
        "by_std_values_per_class": partial(within_spread, total_var),
        "by_std_values_all": partial(smallest, total_var.flatten()[None]),
        "by_ranking": partial(smallest, total_var),
        "by_abs_value": partial(torch.full_like, total_var[:, 0]),
    }
    limits |= {f"{name} {value}": rules[name](value) for name in rules for value in getattr(filters, name)}
    if filters.by_ranking_classwise:
        limits["by_ranking_classwise"] = smallest(total_var, filters.by_ranking_classwise)
    if filters.greedy and scored is not None:
        limits["greedy"] = smallest(total_var, greedy_counts(prompts, *scored).tolist())
    return {"even weights": aggregate_prompts(prompts)} | {
        name: filter_prompts(prompts, limit) for name, limit in limits.items()
    }


def fill_templates(templates: Sequence[str], classnames: Sequence[str]) -> list[list[str]]:
    """Fill every template's `{}` or `{c}` with every class name, one list per class.

    Raises:
        UserError: no template, no class name, a template without placeholder, or one text instead of a list.
    """
    if isinstance(templates, str) or not templates or not classnames:
        raise UserError("templates", "must be a list, with class names beside it", f"{templates!r}")
    for template in templates:
        check("{}" in template or "{c}" in template, "templates", "must have a {} for the class name", f"{template!r}")
    return [[template.replace("{c}", "{}").replace("{}", name) for template in templates] for name in classnames]


def encode_prompts(
    templates: Sequence[str], classnames: Sequence[str], encode: Callable[[list[str]], Gaussian]
) -> Gaussian:
    """Encode all templates with all class names at once, [C, K, D]; errors as for `fill_templates`."""
    texts = [prompt for ensemble in fill_templates(templates, classnames) for prompt in ensemble]
    return encode(texts).unflatten(len(classnames), len(templates))
