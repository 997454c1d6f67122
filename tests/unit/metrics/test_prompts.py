"""Prompt filters against a slow reference, with ties and single prompts; the greedy choice; names."""

from __future__ import annotations

import statistics

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prolip.evaluation.templates import imagenet_classnames, imagenet_templates
from prolip.gaussian import Gaussian
from prolip.metrics.prompts import (
    PromptFilter,
    SmallestByClass,
    SmallestInClass,
    SmallestOfAll,
    UpToThreshold,
    WithinSpread,
    fill_templates,
    filter_prompts,
    greedy_counts,
    kept_prompts,
)
from prolip.metrics.zero_shot import aggregate_prompts, evaluate_zero_shot, zero_shot_logits

tables = st.integers(1, 6).flatmap(
    lambda prompts: st.lists(
        # Small whole numbers tie often.
        st.lists(st.integers(1, 9).map(float), min_size=prompts, max_size=prompts),
        min_size=1,
        max_size=5,
    )
)
rules = st.one_of(
    st.floats(-4, 4).map(lambda x: WithinSpread(num_std=x)),
    st.integers(1, 40).map(lambda n: SmallestOfAll(count=n)),
    st.integers(1, 9).map(lambda n: SmallestInClass(count=n)),
    st.floats(0, 10).map(lambda x: UpToThreshold(threshold=x)),
)


def slow_limit(table: list[list[float]], row: list[float], rule: PromptFilter) -> float:
    match rule:
        case WithinSpread():
            # The deviation of one prompt does not exist.
            return statistics.mean(row) + rule.num_std * statistics.stdev(row) if len(row) > 1 else -1.0
        case SmallestOfAll():
            flat = sorted(value for other in table for value in other)
            return flat[min(rule.count, len(flat)) - 1]
        case SmallestInClass():
            return sorted(row)[min(rule.count, len(row)) - 1]
        case SmallestByClass():
            return sorted(row)[min(rule.counts[table.index(row)], len(row)) - 1]
        case UpToThreshold():
            return rule.threshold


@settings(max_examples=200)
@given(table=tables, rule=rules)
def test_each_rule_keeps_the_prompts_below_its_limit(table: list[list[float]], rule: PromptFilter) -> None:
    found = kept_prompts(torch.tensor(table, dtype=torch.float64), rule)
    for row, kept in zip(table, found.tolist(), strict=True):
        limit = slow_limit(table, row, rule)
        if isinstance(rule, WithinSpread) and any(abs(value - limit) < 1e-9 for value in row):
            continue  # the last digit of the deviation decides
        expected = [value <= limit for value in row]
        assert kept == (expected if any(expected) else [value == min(row) for value in row])


@settings(max_examples=50)
@given(table=tables, count=st.integers(1, 7))
def test_equal_counts_by_class_equal_one_count(table: list[list[float]], count: int) -> None:
    total_var = torch.tensor(table)
    same = kept_prompts(total_var, SmallestByClass(counts=(count,) * len(table)))
    assert torch.equal(same, kept_prompts(total_var, SmallestInClass(count=count)))


def test_ties_are_kept_and_large_counts_keep_all_prompts() -> None:
    total_var = torch.tensor([[3.0, 1.0, 2.0, 2.0]])
    assert kept_prompts(total_var, SmallestInClass(count=2)).tolist() == [[False, True, True, True]]
    assert kept_prompts(total_var, SmallestInClass(count=99)).all()
    assert kept_prompts(total_var, UpToThreshold(threshold=0.5)).tolist() == [[False, True, False, False]]
    equal = torch.tensor([[2.0, 2.0]])
    assert kept_prompts(equal, UpToThreshold(threshold=0.5)).all()


def test_a_single_prompt_is_kept_by_every_rule() -> None:
    for rule in (WithinSpread(num_std=-3.0), SmallestOfAll(count=1), UpToThreshold(threshold=0.0)):
        assert kept_prompts(torch.tensor([[5.0], [7.0]]), rule).all()


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (SmallestInClass(count=0), "count of prompts to keep is 0"),
        (SmallestOfAll(count=-1), "count of prompts to keep is -1"),
        (SmallestByClass(counts=(1,)), "1 counts of prompts to keep do not match 2 classes"),
    ],
)
def test_impossible_rules_are_refused(rule: PromptFilter, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kept_prompts(torch.ones(2, 3), rule)
    with pytest.raises(ValueError, match="is NaN"):
        kept_prompts(torch.full((2, 3), torch.nan), UpToThreshold(threshold=1.0))


def test_the_classifier_averages_only_the_kept_prompts() -> None:
    prompts = Gaussian(F.normalize(torch.randn(2, 4, 8), dim=-1), torch.randn(2, 4, 8))
    found = filter_prompts(prompts, SmallestInClass(count=2))
    for place in range(2):
        kept = prompts.total_var[place].argsort()[:2]
        torch.testing.assert_close(found.weight[place], F.normalize(prompts.mean[place, kept].mean(0), dim=0))
        torch.testing.assert_close(found.var[place], prompts.var[place, kept].mean(0))
    everything, uniform = filter_prompts(prompts, SmallestInClass(count=4)), aggregate_prompts(prompts)
    torch.testing.assert_close(everything.weight, uniform.weight)
    torch.testing.assert_close(everything.var, uniform.var)


# ---------------------------------------------------------------------------------------------------------------------
# The greedy choice


def accuracy(prompts: Gaussian, counts: tuple[int, ...], images: Tensor, labels: Tensor) -> float:
    weight = filter_prompts(prompts, SmallestByClass(counts=counts)).weight
    return evaluate_zero_shot(zero_shot_logits(images, weight, logit_scale=1.0), labels).top1


def slow_greedy(prompts: Gaussian, images: Tensor, labels: Tensor) -> tuple[int, ...]:
    num_classes, num_prompts, _ = prompts.mean.shape
    counts = [num_prompts] * num_classes
    for place in range(num_classes):
        tried = {k: accuracy(prompts, (*counts[:place], k, *counts[place + 1 :]), images, labels)
                 for k in range(num_prompts, 0, -1)}  # fmt: skip
        counts[place] = max(tried, key=lambda k: tried[k])
    return tuple(counts)


def scattered(seed: int, num_images: int) -> tuple[Gaussian, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draw = [torch.randn(4, 5, 6, generator=generator, dtype=torch.float64) for _ in range(2)]
    images = F.normalize(torch.randn(num_images, 6, generator=generator, dtype=torch.float64), dim=-1)
    labels = torch.randint(4, (num_images,), generator=generator)
    return Gaussian(F.normalize(draw[0], dim=-1), draw[1]), images, labels


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_greedy_counts_are_those_of_a_slow_search(seed: int, ties: bool) -> None:
    prompts, images, labels = scattered(seed, 40)
    if ties:  # vectors of zeros and a one, and two prompts a class: sums without rounding, which often tie
        prompts = Gaussian((prompts.mean == prompts.mean.amax(-1, keepdim=True)).double(), prompts.log_var)
        prompts = prompts.rows(slice(2))
        images = (images == images.amax(-1, keepdim=True)).double()
    steps: list[int] = []
    found = greedy_counts(prompts, images, labels, on_progress=steps.append)
    assert found.counts == slow_greedy(prompts, images, labels)
    assert steps == [1] * 4


def test_greedy_counts_overestimate_accuracy_on_their_own_images() -> None:
    """On labels that are noise they gain where they were chosen and nothing elsewhere."""
    gain_here, gain_elsewhere = [], []
    for seed in range(20):
        prompts, images, labels = scattered(seed, 120)
        here, there = slice(0, 60), slice(60, None)
        counts = greedy_counts(prompts, images[here], labels[here]).counts
        for gains, part in ((gain_here, here), (gain_elsewhere, there)):
            uniform = accuracy(prompts, (5,) * 4, images[part], labels[part])
            gains.append(accuracy(prompts, counts, images[part], labels[part]) - uniform)
    assert min(gain_here) >= 0
    assert statistics.mean(gain_here) > 0.05
    assert abs(statistics.mean(gain_elsewhere)) < 0.04


@pytest.mark.parametrize("labels", [[], [0, 4], [-1]])
def test_greedy_counts_need_labels(labels: list[int]) -> None:
    prompts, images, _ = scattered(0, 2)
    with pytest.raises(ValueError, match="labels must be from 0 to 3"):
        greedy_counts(prompts, images[: len(labels)], torch.tensor(labels, dtype=torch.int64))


# ---------------------------------------------------------------------------------------------------------------------
# Names


def test_imagenet_names_and_templates_are_open_clips() -> None:
    names = imagenet_classnames()
    assert (len(names), names[0], names[999]) == (1000, "tench", "toilet paper")
    assert len(imagenet_templates()) == 80
    assert len(imagenet_templates("simple")) == 7
    assert all(template.count("{}") == 1 for template in imagenet_templates())


def test_templates_accept_both_placeholder_spellings() -> None:
    assert fill_templates(["a {}", "{c}!"], ["x", "{y}"]) == [["a x", "x!"], ["a {y}", "{y}!"]]
    with pytest.raises(ValueError, match=r"template 'plain' has no \{\} for the class name"):
        fill_templates(["plain"], ["x"])
    with pytest.raises(ValueError, match="0 templates and 1 class names make no prompts"):
        fill_templates([], ["x"])
    with pytest.raises(ValueError, match=r"templates is the text 'a photo of a \{\}': give a list of templates"):
        fill_templates("a photo of a {}", ["x"])  # a text is a sequence of texts
