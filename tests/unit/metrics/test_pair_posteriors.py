"""Posteriors of pairs against the softmax of all logits."""

import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st

from prolip.gaussian import Gaussian, csd
from prolip.metrics.pair_posteriors import Pairs, pair_posteriors

SCALE = 5.0


def pairs_of(count, seed):
    """Pairs, and their posteriors by definition."""
    draw = torch.Generator().manual_seed(seed)
    image, text = F.normalize(torch.randn(2, count, 8, generator=draw, dtype=torch.float64), dim=-1)
    image_var, text_var = torch.rand(2, count, generator=draw, dtype=torch.float64)
    logits = [
        Gaussian(mean, (var / 8).log()[:, None].expand_as(mean)) for mean, var in ((image, image_var), (text, text_var))
    ]
    logits = -SCALE / 2 * csd(*logits)
    expected = logits.log_softmax(0).diagonal() + logits.log_softmax(1).diagonal()
    return Pairs(torch.arange(count), image, text, image_var, text_var), expected


def some_of(pairs, rows):
    return Pairs(*(values[rows] for values in pairs))


@given(st.sampled_from([1, 2, 3, 1023, 1025]), st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_beside_all_pairs_they_are_exact_in_any_order(count, seed):
    pairs, expected = pairs_of(count, seed)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    found = pair_posteriors(some_of(pairs, order), pairs, count, SCALE)
    torch.testing.assert_close(found, expected[order])


def test_a_sample_stands_for_all_others_whether_a_pair_is_in_it_or_not():
    pairs, expected = pairs_of(2000, 0)
    estimates = []
    for seed in range(20):
        rows = torch.randperm(2000, generator=torch.Generator().manual_seed(seed))[:200]
        estimates.append(pair_posteriors(pairs, some_of(pairs, rows), 2000, SCALE))
    mean = torch.stack(estimates).mean(0) - expected
    assert abs(float(mean[:1000].mean())) < 0.1
    assert float(mean.abs().mean()) < 0.3
    assert float(torch.corrcoef(torch.stack([estimates[0], expected]))[0, 1]) > 0.95
