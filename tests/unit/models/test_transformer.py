"""Attention by torch's fused kernels, as on a GPU: equal to attention under a mask, without a mask."""

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from prolip.models import ModelConfig, ProLIP, TextConfig, VisionConfig
from prolip.models.transformer import AttentionMask, attend, attend_fused, hide_token

TINY = ModelConfig(
    embed_dim=16,
    vision=VisionConfig(layers=2, width=16, head_width=8, patch_size=4, image_size=8, embed_unc=True, unc_seen=False),
    text=TextConfig(
        layers=2,
        width=16,
        heads=2,
        context_length=6,
        vocab_size=30,
        embed_cls=False,
        unc_seen=False,
        log_var_source="unc",
    ),
    init_logit_bias=-10.0,
)
CLIP = replace(TINY, text=replace(TINY.text, no_causal_mask=False))
SIGLIP = replace(TINY, vision=replace(TINY.vision, pool_type="map"), text=replace(TINY.text, pool_type="last"))
FULL = torch.ones(7, 7, dtype=torch.bool)


def hiding(token: int) -> AttentionMask:
    return AttentionMask(hide_token(FULL, token), hidden=token, seer=token)


MASKS = {
    "causal": AttentionMask(FULL.tril(), causal=True),
    "first hidden": hiding(0),
    "second hidden": hiding(1),
    "last hidden": hiding(6),
}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("rows", [slice(None), slice(0, 1), slice(0, 2), slice(-1, None), slice(-2, None), slice(2, 4)])
def test_a_named_attention_mask_equals_its_matrix(name, rows):
    torch.manual_seed(0)
    whole, key, value = (torch.randn(2, 4, 7, 8, dtype=torch.float64, requires_grad=True) for _ in range(3))
    query, mask = whole[:, :, rows], MASKS[name].of_rows(rows)
    expected, found = attend(query, key, value, AttentionMask(mask.allowed)), attend_fused(query, key, value, mask)
    torch.testing.assert_close(found, expected)
    inputs, upstream = [whole, key, value], torch.randn_like(expected)
    gradients = [torch.autograd.grad(one, inputs, upstream) for one in (found, expected)]
    torch.testing.assert_close(*gradients)


def calls_of(config: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, bool]]:
    """Whether each call of the fused kernel has a matrix of what is allowed, and whether it is causal."""
    calls = []
    kernel = F.scaled_dot_product_attention

    def recorded(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
        calls.append((mask is not None, bool(options.get("is_causal"))))
        return kernel(query, key, value, mask, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", recorded)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no meta device
    with torch.device("meta"):  # takes the path of a GPU, and computes nothing
        model = ProLIP(config)
        model(torch.empty(3, 3, 8, 8), torch.empty(1, 3, 6, dtype=torch.int64))
    return calls


@pytest.mark.parametrize("config", [CLIP, SIGLIP, TINY], ids=["clip", "siglip", "argmax"])
def test_every_fine_tuned_model_uses_a_named_mask(config, monkeypatch):
    calls = calls_of(config, monkeypatch)
    assert len(calls) >= 4
    assert not any(has_matrix for has_matrix, _ in calls)
    assert any(causal for _, causal in calls) == (config is CLIP)
