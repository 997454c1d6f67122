"""The heads start at the frozen model, have the right gradients, and learn a planted structure."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tests.support.frozen_pairs import made_up, write_pairs

from prolip.adapt.config import HeadsConfig
from prolip.adapt.heads import fit_heads, forward, start_heads
from prolip.adapt.logits import Logits, fit_logits
from prolip.adapt.pairs import PairRows, open_pairs
from prolip.distributed import Peers
from prolip.losses import LossConfig, ProlipLoss
from prolip.metrics.statistics import spearman
from prolip.models.adapter import Adapter
from prolip.models.config import AdapterConfig

DIM = 8
PPCL = LossConfig(inclusion_weight=0, masked_inclusion_weight=0, vib_weight=0)
EXACT = LossConfig(inclusion_form="exact", vib_form="exact", inclusion_weight=0.1, inclusion_scale=1.0, vib_weight=0.1)


def new(hidden=4, means="fixed"):
    torch.manual_seed(0)
    return Adapter(AdapterConfig(embed_dim=DIM, hidden=hidden, means=means))


@pytest.mark.parametrize("hidden", [0, 4])
@pytest.mark.parametrize("means", ["fixed", "residual"])
def test_at_the_start_the_heads_equal_the_frozen_model(hidden, means):
    batch = PairRows(*made_up(20, DIM), None, None)
    start = fit_logits([batch])
    adapter = new(hidden, means)
    start_heads(adapter, start)
    output = forward(adapter, batch)
    torch.testing.assert_close(output.image.mean, batch.image)
    torch.testing.assert_close(output.text.uncertainty, torch.full((1, 20), 1 / start.scale))
    assert float(ProlipLoss(PPCL, Peers())(output).total.detach()) == pytest.approx(start.loss, rel=1e-4)


@pytest.mark.parametrize("means", ["fixed", "residual"])
def test_gradients_equal_finite_differences(means):
    adapter = new(means=means).double()
    start_heads(adapter, Logits(5.0, -3.0, 0.0))
    rows = [F.normalize(torch.randn(6, DIM, dtype=torch.float64), dim=1) for _ in range(4)]
    batch, measure = PairRows(*rows), ProlipLoss(EXACT, Peers())
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    measure(forward(adapter, batch)).total.backward()
    for name, parameter in adapter.named_parameters():
        direction = torch.randn_like(parameter)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(direction, alpha=sign * 1e-5)
                values.append(float(measure(forward(adapter, batch)).total))
                parameter.sub_(direction, alpha=sign * 1e-5)
        assert parameter.grad is not None
        difference = (values[0] - values[1]) / 2e-5
        assert float((parameter.grad * direction).sum()) == pytest.approx(difference, rel=1e-4, abs=1e-8), name


def test_with_a_variance_scale_variances_follow_the_mean_similarity(tmp_path):
    """Also on pairs that the frozen model tells apart without an error."""
    image, text = made_up(512, DIM, noise=0.0)
    towards = torch.rand(512, 1, generator=torch.Generator().manual_seed(0)) * torch.eye(DIM)[0]
    image, text = F.normalize(image + towards, dim=1), F.normalize(text + towards, dim=1)
    pairs = open_pairs([str(write_pairs(tmp_path / "a", image, text))])
    nearness = (text @ image.T).mean(1)
    found = {}
    for scale in (2.0, None):
        adapter = new(hidden=16)
        start_heads(adapter, Logits(30.0, -20.0, 0.0))
        fit_heads(adapter, pairs, HeadsConfig(steps=100, batch_size=512, lr=1e-2), replace(PPCL, variance_scale=scale))
        found[scale] = spearman(nearness, adapter.text(text).uncertainty.detach())
    assert found[2.0] > 0.92 > found[None]


def test_masked_views_become_more_uncertain(tmp_path):
    image, text = made_up(256, DIM, seed=1)
    views = tuple(F.normalize(one * torch.tensor([1.0] * 4 + [0.1] * 4), dim=1) for one in (image, text))
    whole = write_pairs(tmp_path / "whole", image, text)
    masked = write_pairs(tmp_path / "masked", *views)
    adapter = new(hidden=16)
    start_heads(adapter, Logits(5.0, -5.0, 0.0))
    loss = LossConfig(
        ppcl_weight=0, inclusion_form="exact", masked_inclusion_weight=1, inclusion_scale=1.0, vib_weight=0
    )
    fit_heads(adapter, open_pairs([str(whole)], [str(masked)]), HeadsConfig(steps=100, batch_size=64, lr=1e-2), loss)
    wider = adapter.image(views[0]).uncertainty > adapter.image(image).uncertainty
    assert float(wider.float().mean()) > 0.95
