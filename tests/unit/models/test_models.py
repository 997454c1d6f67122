"""The towers, their configurations and their official form."""

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tests.support.refusals import refusal_of

from prolip.errors import UserError
from prolip.models import ARCHITECTURES, ModelConfig, ProLIP, TextConfig, VisionConfig
from prolip.models.official_json import from_official_json, to_official_json
from prolip.models.transformer import Attention, hide_token

TINY = ModelConfig(
    embed_dim=16,
    vision=VisionConfig(layers=2, width=16, head_width=8, patch_size=4, image_size=(8, 12), embed_unc=True),
    text=TextConfig(layers=2, width=16, heads=2, context_length=6, vocab_size=30),
    init_logit_bias=-10.0,
)
FROM_UNC = replace(
    TINY,
    vision=replace(TINY.vision, final_norm="once"),
    text=replace(TINY.text, log_var_source="unc"),
)


@pytest.fixture
def images():
    return torch.randn(3, 3, 8, 12, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def token_ids():
    return torch.randint(0, 30, (2, 3, 6), generator=torch.Generator().manual_seed(0))


def model_of(config):
    torch.manual_seed(0)
    model = ProLIP(config)
    # Norms that are not the identity, as after training.
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
    return model


# ---------------------------------------------------------------------------------------------------------------------
# Towers


def test_embeddings_have_unit_means_and_start_at_the_configured_log_variance(images, token_ids):
    torch.manual_seed(0)  # a model of this size starts with noisy log variances
    output = ProLIP(TINY)(images, token_ids)
    assert output.image.mean.shape == output.image.log_var.shape == (3, 16)
    assert output.text.mean.shape == output.text.log_var.shape == (2, 3, 16)
    for gaussian, start in zip((output.image, output.text), TINY.start_variances, strict=True):
        assert float(gaussian.total_var.mean().detach()) == pytest.approx(start, rel=0.7)
        torch.testing.assert_close(gaussian.mean.norm(dim=-1), torch.ones(gaussian.mean.shape[:-1]))
        assert float(gaussian.log_var.mean().detach()) == pytest.approx(-10, abs=1)
    assert output.masked_image is None
    assert output.masked_text is None
    torch.testing.assert_close(output.logit_scale, torch.tensor(1 / 0.07))


def test_pixels_after_the_last_patch_are_cut_and_other_sizes_refused(images):
    tower = ProLIP(TINY).visual
    wider = torch.cat([images, torch.ones(3, 3, 8, 2)], -1)
    torch.testing.assert_close(tower(wider).mean, tower(images).mean)
    with pytest.raises(ValueError, match="grid"):
        tower(torch.zeros(1, 3, 12, 12))


def test_masked_views_are_embedded_in_the_same_pass(images, token_ids):
    model = model_of(TINY)
    masked_ids, kept = token_ids[:, :2] * 0 + 7, torch.tensor([1, 3])
    output = model(images, token_ids, masked_ids, kept)
    torch.testing.assert_close(tuple(output.masked_image), tuple(model.encode_image(images[:2], kept)))
    assert output.masked_text is not None
    for slot in range(2):
        for got, ids in ((output.text, token_ids[slot]), (output.masked_text, masked_ids[slot])):
            torch.testing.assert_close(got.mean[slot], model.encode_text(ids).mean)
            torch.testing.assert_close(got.log_var[slot], model.encode_text(ids).log_var)
    with pytest.raises(ValueError, match="together"):
        model(images, token_ids, masked_ids)


@pytest.mark.parametrize("hidden", [None, 0, 6])
@pytest.mark.parametrize("rows", [None, slice(0, 2), slice(-2, None)])
def test_attention_is_a_softmax_of_what_the_mask_allows(hidden, rows):
    torch.manual_seed(0)
    attention, x = Attention(16, 4).double(), torch.randn(2, 7, 16, dtype=torch.float64)
    mask = None if hidden is None else hide_token(torch.ones(7, 7, dtype=torch.bool).tril(), hidden)
    query, key, value = F.linear(x, attention.in_proj_weight, attention.in_proj_bias).view(2, 7, 3, 4, 4).unbind(2)
    scores = torch.einsum("bqhd,bkhd->bhqk", query, key) / 2
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    expected = attention.out_proj(torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), value).flatten(2))
    torch.testing.assert_close(attention(x, rows, mask), expected[:, rows or slice(None)])


@pytest.mark.parametrize("pool_type", ["argmax", "last", "eos"])
@pytest.mark.parametrize("no_causal_mask", [True, False])
def test_without_cls_the_mean_comes_from_the_pooled_token(pool_type, no_causal_mask):
    text = replace(TINY.text, embed_cls=False, pool_type=pool_type, eos_id=3, no_causal_mask=no_causal_mask)
    model = model_of(replace(TINY, text=replace(text, log_var_source="unc")))
    ids = torch.tensor([[5, 3, 9, 3, 1, 1], [4, 29, 3, 1, 1, 2]])
    read = {"argmax": [2, 1], "last": [5, 5], "eos": [1, 2]}[pool_type]
    tower = model.text
    tokens = tower._tokens(ids)
    whole = tower.ln_final(tower.transformer(tokens, slice(None), tower._mask(tokens)))
    expected = tower.text_projection(whole[torch.arange(2), read])
    torch.testing.assert_close(tower(ids).mean, expected)
    torch.testing.assert_close(tower(ids).log_var, tower.text_uncertainty_projection(whole[:, -1]))
    # Under the causal mask what follows the token has no influence on it.
    changed = ids.clone()
    changed[0, 4] = 2
    same = torch.allclose(tower(changed).mean[0], tower(ids).mean[0])
    assert same == (not no_causal_mask and pool_type != "last")


@pytest.mark.parametrize("config", [TINY, FROM_UNC], ids=["released", "own"])
def test_autocast_keeps_heads_in_single_precision(config, images, token_ids):
    model = model_of(config)
    exact = model(images, token_ids)
    with torch.autocast("cpu", torch.bfloat16):
        low = model(images, token_ids)
    for got, expected in ((low.image, exact.image), (low.text, exact.text)):
        assert got.mean.dtype == got.log_var.dtype == torch.float32
        torch.testing.assert_close(got.mean, expected.mean, atol=0.05, rtol=0)
    low.image.log_var.sum().backward()


@pytest.mark.parametrize("masked", [False, True])
def test_attention_in_half_precision_is_that_of_single_precision(masked):
    torch.manual_seed(0)
    attention, x = Attention(32, heads=2), 3 * torch.randn(4, 6, 32)
    mask = (torch.rand(4, 1, 1, 6) < 0.5).index_fill_(-1, torch.tensor([0]), True) if masked else None
    exact = attention(x, mask=mask)
    with torch.autocast("cpu", torch.bfloat16):
        low = attention(x, mask=mask)
    torch.testing.assert_close(low.float(), exact, atol=0.02 * float(exact.detach().abs().max()), rtol=0)


def test_initial_weights_have_the_specified_standard_deviations():
    torch.manual_seed(0)
    wide = replace(TINY, embed_dim=256, text=replace(TINY.text, width=256), vision=replace(TINY.vision, width=256))
    model = ProLIP(wide)
    expected = {
        "visual.proj": 256**-0.5,
        "visual.uncertainty_proj.weight": 256**-0.5,
        "text.token_embedding.weight": 0.02,
        "text.transformer.resblocks.0.attn.in_proj_weight": 256**-0.5,
        "text.transformer.resblocks.0.attn.out_proj.weight": 256**-0.5 * 4**-0.5,
        "text.transformer.resblocks.1.mlp.c_fc.weight": 512**-0.5,
        "text.transformer.resblocks.1.mlp.c_proj.weight": 256**-0.5 * 4**-0.5,
        "text.text_projection.weight": 256**-0.5,
    }
    for name, std in expected.items():
        assert float(model.get_parameter(name).detach().std()) == pytest.approx(std, rel=0.05), name


# ---------------------------------------------------------------------------------------------------------------------
# Configurations


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_a_config_survives_the_official_json(name):
    config = ARCHITECTURES[name]
    written = json.dumps(to_official_json(config))
    assert from_official_json(json.loads(written)) == config
    assert to_official_json(from_official_json(json.loads(written))) == json.loads(written)


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "demo"])
def test_architectures_have_the_sizes_of_the_released_models(name):
    with torch.device("meta"):
        model = ProLIP(ARCHITECTURES[name])
    millions = {"ViT-L-16": 655, "ViT-SO400M-14": 866, "ViT-H-14": 991}
    counted = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert counted == pytest.approx(millions.get(name, 198), rel=0.02)


def official(**changes):
    """A small official file with settings changed; "vision_cfg.x" is x of that block."""
    given = to_official_json(TINY)
    for key, value in changes.items():
        block, _, name = key.rpartition("__")
        (given[block] if block else given)[name] = value
    return given


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"vision_cfg__pool_type": "avg"}, "vision_cfg.pool_type"),
        ({"vision_cfg__pos_embed_type": "sin_cos_2d"}, "vision_cfg.pos_embed_type"),
        ({"vision_cfg__norm_kwargs": {"epsilon": 1}}, "vision_cfg.norm_kwargs"),
        ({"vision_cfg__act_kwargs": {"approximate": "no"}}, "vision.gelu"),
        ({"vision_cfg__widht": 3}, "vision_cfg.widht"),
        ({"text_cfg__tokenizer_kwargs": {"strip": True}}, "text_cfg.tokenizer_kwargs"),
        ({"embed_dims": 3}, "embed_dims"),
        ({"embed_dim": 17}, "text.width"),
        ({"init_logit_scale": 0}, "init_logit_scale"),
        ({"text_cfg__heads": 3}, "text.width"),
        ({"vision_cfg__layers": 0}, "vision.layers"),
        ({"vision_cfg__head_width": 5}, "vision.width"),
        ({"vision_cfg__mlp_ratio": 0}, "vision.mlp_ratio"),
        ({"text_cfg__norm_kwargs": {"eps": -1e-5}}, "text.norm_eps"),
        ({"vision_cfg__init_unc_bias": 710}, "vision.init_unc_bias"),
        ({"vision_cfg__image_size": 3}, "vision.image_size"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(changes, field):
    with refusal_of(field):
        from_official_json(official(**changes))


def test_settings_without_effect_are_accepted():
    given = official(
        output_dict=True,
        text_cfg__pool_type="last",
        text_cfg__pad_id=1,
        vision_cfg__timm_pool="avg",
        text_cfg__hf_model_name=None,
    )
    assert from_official_json(given) == TINY


def test_an_init_bias_of_zero_means_no_bias():
    assert from_official_json(official(init_logit_bias=0)).init_logit_bias is None
    with pytest.raises(UserError):
        replace(TINY, init_logit_bias=0.0)
    del (given := official())["embed_dim"]
    with pytest.raises(UserError):
        from_official_json(given)
