"""Adapters are written and read; errors name what is damaged."""

import json

import pytest
import torch
import torch.nn.functional as F

from prolip.models.adapter import (
    ADAPTER_FILE,
    ADAPTER_WEIGHTS,
    Adapter,
    Frozen,
    read_adapter,
    save_adapter,
)
from prolip.models.config import AdapterConfig
from prolip.models.weights import WeightsError

DIM = 6
FROZEN = Frozen("open_clip:ViT-B-32/openai", "digest", None)
CONFIGS = [
    {},
    {"hidden": 3},
    {"hidden": 3, "means": "residual"},
]


def new(**settings):
    torch.manual_seed(0)
    adapter = Adapter(AdapterConfig(**{"embed_dim": DIM, **settings}))
    with torch.no_grad():
        for tensor in adapter.state_dict().values():
            tensor.copy_(torch.rand_like(tensor))
    return adapter


@pytest.mark.parametrize("settings", CONFIGS, ids=str)
def test_a_saved_adapter_loads_equal(tmp_path, settings):
    adapter = new(**settings)
    save_adapter(adapter, FROZEN, tmp_path, {"pairs": 3})
    read, frozen = read_adapter(tmp_path / ADAPTER_FILE, tmp_path / ADAPTER_WEIGHTS)
    assert (read.config, frozen) == (adapter.config, FROZEN)
    assert not read.training
    features = F.normalize(torch.randn(4, DIM), dim=1)
    for mine, theirs in ((adapter.image, read.image), (adapter.text, read.text)):
        for one, other in zip(mine(features), theirs(features), strict=True):
            assert torch.equal(one, other)
    assert torch.equal(adapter.logit_scale, read.logit_scale)
    assert torch.equal(adapter.logit_bias, read.logit_bias)
    assert json.loads((tmp_path / ADAPTER_FILE).read_text())["notes"] == {"pairs": 3}
    assert sorted(path.name for path in tmp_path.iterdir()) == [ADAPTER_FILE, ADAPTER_WEIGHTS]


def test_heads_return_gaussians_with_unit_means():
    features = F.normalize(torch.randn(2, 3, DIM), dim=-1)
    moved = new(hidden=3, means="residual").image(features)
    assert moved.mean.shape == moved.log_var.shape == features.shape
    torch.testing.assert_close(moved.mean.norm(dim=-1), torch.ones(2, 3))
    assert not torch.allclose(moved.mean, features)


def damage_table(folder, name, value):
    content = json.loads((folder / ADAPTER_FILE).read_text())
    place, _, key = name.rpartition(".")
    (content[place] if place else content)[key] = value
    (folder / ADAPTER_FILE).write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("adapter.means", "magic"),
        ("adapter.embed_dim", 0),
        ("adapter.embed_dim", DIM + 1),
        ("adapter.has_bias", "yes"),
        ("adapter.other", 1),
        ("frozen.source", 3),
        ("frozen", {}),
        ("checksum", 7),
    ],
)
def test_a_damaged_adapter_is_refused(tmp_path, name, value):
    save_adapter(new(), FROZEN, tmp_path, {})
    damage_table(tmp_path, name, value)
    with pytest.raises(WeightsError, match="adapter"):
        read_adapter(tmp_path / ADAPTER_FILE, tmp_path / ADAPTER_WEIGHTS)
