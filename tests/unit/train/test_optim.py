"""Parameter groups, learning rates, clipping and the clamp."""

import math

import pytest
import torch
from tests.support.small_step import ALONE, CONFIG
from torch import nn

from prolip.models import ProLIP
from prolip.train.config.optim import OptimConfig
from prolip.train.muon import MuonWithAdamW
from prolip.train.optim import (
    clamp_logit_scale,
    clip_gradients,
    make_optimizer,
    set_learning_rate,
)


class Tiny(nn.Module):
    """The names that the rules look at."""

    def __init__(self):
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(2.0))
        self.logit_bias = nn.Parameter(torch.tensor(-10.0))
        self.visual = nn.ModuleDict({"uncertainty_proj": nn.Linear(3, 3), "ln_post": nn.LayerNorm(3)})
        self.text = nn.ModuleDict(
            {"text_uncertainty_projection": nn.Linear(3, 3), "token_embedding": nn.Embedding(4, 3)}
        )


def test_every_parameter_is_in_one_group_with_its_decay_and_factor():
    model = Tiny()
    config = OptimConfig(lr=0.1, log_var_lr_factor=2.0, logit_lr_factor=10.0, weight_decay=0.5)
    optimizer = make_optimizer(model, config, ALONE)
    set_learning_rate(optimizer, 0.01)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    seen = {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert seen == {
        "logit_scale": (0.1, 0.0),
        "logit_bias": (0.1, 0.0),
        "visual.uncertainty_proj.weight": (0.02, 0.5),
        "visual.uncertainty_proj.bias": (0.02, 0.0),
        "visual.ln_post.weight": (0.01, 0.0),
        "visual.ln_post.bias": (0.01, 0.0),
        "text.text_uncertainty_projection.weight": (0.02, 0.5),
        "text.text_uncertainty_projection.bias": (0.02, 0.0),
        "text.token_embedding.weight": (0.01, 0.5),
    }
    assert len(make_optimizer(model, OptimConfig(), ALONE).param_groups) == 2
    model.logit_scale.requires_grad_(False)
    held = [p for group in make_optimizer(model, OptimConfig(), ALONE).param_groups for p in group["params"]]
    assert all(p is not model.logit_scale for p in held)


def test_muon_updates_only_the_matrices_of_the_blocks():
    model = ProLIP(CONFIG)
    optimizer = make_optimizer(model, OptimConfig(hidden="muon", weight_decay=0.5), ALONE)
    assert isinstance(optimizer, MuonWithAdamW)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {}
    for group in optimizer.param_groups:
        found.setdefault(group["muon"], set()).update(names[id(one)] for one in group["params"])
    blocks = [
        *(f"visual.transformer.resblocks.{layer}" for layer in range(CONFIG.vision.layers)),
        *(f"text.transformer.resblocks.{layer}" for layer in range(CONFIG.text.layers)),
    ]
    assert found[3] == {f"{block}.attn.in_proj_weight" for block in blocks}
    plain = ("attn.out_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
    assert found[1] == {f"{block}.{kind}" for block in blocks for kind in plain}
    assert found[0] == set(names.values()) - found[1] - found[3]
    by_muon = [group for group in optimizer.param_groups if group["muon"]]
    assert all((group["weight_decay"], group["lr_factor"]) == (0.5, 1.0) for group in by_muon)


def test_clipping_returns_the_norm_before_clipping():
    weight, unused = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, 4.0])
    assert float(clip_gradients([weight, unused], None)) == 5.0
    assert torch.equal(weight.grad, torch.tensor([3.0, 4.0]))
    assert float(clip_gradients([weight, unused], 1.0)) == 5.0
    torch.testing.assert_close(weight.grad.norm(), torch.tensor(1.0))
    clip_gradients([weight], 10.0)
    torch.testing.assert_close(weight.grad.norm(), torch.tensor(1.0))


@pytest.mark.parametrize(("start", "end"), [(-1.0, 0.0), (3.0, 3.0), (9.0, math.log(100))])
def test_the_logit_scale_is_clamped(start, end):
    model = Tiny()
    nn.init.constant_(model.logit_scale, start)
    clamp_logit_scale(model)
    assert float(model.logit_scale.detach()) == pytest.approx(end)
