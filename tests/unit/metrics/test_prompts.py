"""Prompt filters against a slow reference, with ties and single prompts; templates."""

import statistics

import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from tests.support.refusals import refusal_of

from prolip.gaussian import Gaussian
from prolip.metrics.config import FilterConfig
from prolip.metrics.prompts import (
    fill_templates,
    filter_prompts,
    greedy_counts,
    kept_prompts,
    smallest,
    unweighted_classifiers,
    within_spread,
)
from prolip.metrics.zero_shot import aggregate_prompts

tables = st.integers(1, 6).flatmap(
    lambda prompts: st.lists(
        # Small whole numbers tie often.
        st.lists(st.integers(1, 9).map(float), min_size=prompts, max_size=prompts),
        min_size=1,
        max_size=5,
    )
)


@settings(max_examples=100)
@given(table=tables, count=st.integers(1, 9), num_std=st.floats(-4, 4), limit=st.floats(0, 10))
def test_each_filter_keeps_the_prompts_up_to_its_limit(table, count, num_std, limit):
    total_var = torch.tensor(table, dtype=torch.float64)
    flat = sorted(value for row in table for value in row)
    place = min(count, len(flat)) - 1
    spread = [
        statistics.mean(row) + num_std * statistics.stdev(row) if len(row) > 1 else -1.0 for row in table
    ]  # one prompt has no deviation
    limits = {
        "in class": (smallest(total_var, count), [sorted(row)[min(count, len(row)) - 1] for row in table]),
        "by class": (smallest(total_var, [count] * len(table)), [sorted(row)[:count][-1] for row in table]),
        "of all": (smallest(total_var.reshape(1, -1), count), [flat[place]] * len(table)),
        "spread": (within_spread(total_var, num_std), spread),
        "threshold": (limit, [limit] * len(table)),
    }
    for name, (found, expected) in limits.items():
        for row, kept, most in zip(table, kept_prompts(total_var, found).tolist(), expected, strict=True):
            if name == "spread" and any(abs(value - most) < 1e-9 for value in row):
                continue  # the last digit of the deviation decides
            inside = [value <= most for value in row]
            assert kept == (inside if any(inside) else [value == min(row) for value in row]), name


def test_counts_below_one_or_not_one_per_class_are_refused():
    for counts in (0, [1, 0], [1, 2, 3]):
        with refusal_of("counts"):
            smallest(torch.ones(2, 3), counts)


def test_the_classifier_averages_only_the_kept_prompts():
    prompts = Gaussian(F.normalize(torch.randn(2, 4, 8), dim=-1), torch.randn(2, 4, 8))
    found = filter_prompts(prompts, smallest(prompts.total_var, 2))
    for place in range(2):
        kept = prompts.total_var[place].argsort()[:2]
        torch.testing.assert_close(found.weight[place], F.normalize(prompts.mean[place, kept].mean(0), dim=0))
        torch.testing.assert_close(found.var[place], prompts.var[place, kept].mean(0))
    torch.testing.assert_close(filter_prompts(prompts, torch.inf), aggregate_prompts(prompts))
    torch.testing.assert_close(unweighted_classifiers(prompts)["the more certain half"], found)


def test_greedy_counts_recall_most_images_of_each_class():
    draws = torch.Generator().manual_seed(0)
    prompts = Gaussian(
        F.normalize(torch.randn(4, 6, 8, generator=draws), dim=-1), torch.randn(4, 6, 8, generator=draws)
    )
    means, labels = torch.randn(90, 8, generator=draws), torch.randint(4, (90,), generator=draws)
    found = greedy_counts(prompts, means, labels)
    recalled = []
    for count in range(1, 7):
        top = (means @ filter_prompts(prompts, smallest(prompts.total_var, count)).weight.T).argmax(dim=1)
        recalled.append([int(((top == label) & (labels == label)).sum()) for label in range(4)])
    best = [max(range(6), key=lambda place: (recalled[place][label], -place)) + 1 for label in range(4)]
    assert found.tolist() == best
    assert len(set(best)) > 1
    ours = unweighted_classifiers(prompts, FilterConfig(greedy=True), (means, labels))["greedy"]
    torch.testing.assert_close(ours, filter_prompts(prompts, smallest(prompts.total_var, best)))


def test_templates_accept_both_placeholder_spellings():
    assert fill_templates(["a {}", "{c}!"], ["x", "{y}"]) == [["a x", "x!"], ["a {y}", "{y}!"]]
    for templates in (["plain"], [], "a photo of a {}"):  # a text is a sequence of texts
        with refusal_of("templates"):
            fill_templates(templates, ["x"])
