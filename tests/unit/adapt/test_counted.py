"""Variances counted from a bank of queries: hubs are vague, frequent items are not, another bank is refused."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from tests.support.refusals import refusal_of

from prolip.adapt.config import CountedConfig
from prolip.adapt.counted import count, counted_head

SCALE = 30.0
DIM = 64


def unit(*shape, seed):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def classes(frequencies, seed):
    """Queries [N, D], their classes [N], and items [K, D], the first of which is a hub: it leans to every query."""
    items = unit(len(frequencies), DIM, seed=seed)
    labels = torch.arange(len(frequencies)).repeat_interleave(torch.tensor(frequencies))
    shared = unit(DIM, seed=seed + 2)
    queries = F.normalize(items[labels] + 1.5 * unit(len(labels), DIM, seed=seed + 1) + shared, dim=-1)
    items[0] = F.normalize(items[0] + 0.5 * shared, dim=-1)
    return queries, labels, items


def accuracy(queries, labels, items, variance):
    return float(((queries @ items.T - variance / 2.0).argmax(1) == labels).float().mean())


@pytest.mark.parametrize("seed", range(3))
def test_a_hub_is_vague_and_classes_of_any_frequency_gain(seed):
    for frequencies in ([40] * 20, [1 + 12 * number for number in range(20)]):
        queries, labels, items = classes(frequencies, seed)
        head, counted = counted_head(queries[::2], items, SCALE, CountedConfig())
        variance = head.total_var(items)
        assert counted is not None
        assert counted.evenness > 0.5
        frozen, mine = (
            accuracy(queries[1::2], labels[1::2], items, one) for one in (torch.zeros(len(items)), variance)
        )
        assert mine > frozen
        if frequencies[0] == frequencies[-1]:
            assert variance.argmax() == 0
        else:
            frequent_is_vague = 2.0 / SCALE * (SCALE * queries[::2] @ items.T).softmax(1).sum(0).log()
            assert mine > accuracy(queries[1::2], labels[1::2], items, frequent_is_vague)


def test_a_bank_that_is_not_like_the_items_counts_nothing_unless_it_must():
    _, _, items = classes([40] * 20, 0)
    foreign = F.normalize(items[3] + 0.3 * unit(400, DIM, seed=9), dim=-1)
    head, counted = counted_head(foreign, items, SCALE, CountedConfig())
    assert counted is not None
    assert counted.evenness < 0.5
    assert not head.total_var(items).any()
    forced, _ = counted_head(foreign, items, SCALE, CountedConfig(strength=0.5))
    assert forced.total_var(items).argmax() == 3


@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(0, 9), st.sampled_from(["softmax", "nearest"]), st.floats(0, 2)
)
@settings(max_examples=50, deadline=None)
def test_variances_are_those_of_the_definition(n, k, seed, kernel, strength):
    queries, items, new = unit(n, 8, seed=seed), unit(k, 8, seed=seed + 10), unit(5, 8, seed=seed + 20)
    head, _ = counted_head(queries, items, SCALE, CountedConfig(kernel=kernel, strength=strength))
    items = items[:n]
    expected = []
    for one in new:
        if kernel == "nearest":
            expected.append(2 * strength * max(0.0, float((queries @ one).sort(descending=True).values[:10].mean())))
            continue
        counted = count(queries, items, SCALE)
        chosen = [
            float(weight) / (1.0 + math.exp(float(offset - SCALE * query @ one)))
            for query, weight, offset in zip(queries, counted.weight, counted.offset, strict=True)
        ]
        expected.append(2 * strength / SCALE * math.log1p(sum(chosen) / counted.smoothing))
    torch.testing.assert_close(head.total_var(new), torch.tensor(expected), rtol=1e-3, atol=1e-5)
    gaussian = head(new)
    assert torch.equal(gaussian.mean, new)
    torch.testing.assert_close(gaussian.uncertainty, head.total_var(new))


def test_an_item_that_many_seek_counts_as_one_that_few_seek():
    items = torch.eye(8)
    weight = count(torch.cat([items, items[:1].expand(50, -1)]), items, 100.0).weight
    torch.testing.assert_close(weight.sum(), torch.tensor(8.0))
    of_first, of_second = weight[0] + weight[8:].sum(), weight[1]
    torch.testing.assert_close(of_first / of_second, torch.tensor(51 / 51.5 * 1.5), rtol=0.01, atol=0.0)


def test_counts_do_not_hang_on_rounding():
    queries, items = unit(40, 16, seed=0), unit(20, 16, seed=1)
    single, double = count(queries, items, 100.0), count(queries.double(), items.double(), 100.0)
    torch.testing.assert_close(single.weight, double.weight.float(), rtol=1e-4, atol=1e-4)


def test_without_queries_there_is_no_variance_and_softmax_needs_items():
    items = unit(3, 8, seed=0)
    assert not counted_head(items[:0], items, SCALE, CountedConfig())[0].total_var(items).any()
    assert counted_head(items, items[:0], SCALE, CountedConfig())[0].config.kernel == "nearest"
    with refusal_of("counted.kernel"):
        counted_head(items, items[:0], SCALE, CountedConfig(kernel="softmax"))
