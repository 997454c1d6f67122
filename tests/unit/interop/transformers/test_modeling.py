"""ProLIP in transformers: the same Gaussians as `prolip.models`, for every option of the architecture."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from prolip.gaussian import Gaussian, csd_logits
from prolip.images.tensors import Patches
from prolip.interop.transformers import ProLIPConfig, ProLIPModel
from prolip.models import ModelConfig, ProLIP, TextConfig, VisionConfig
from prolip.models.official_json import to_official_json
from prolip.pretrained import load_network

CLOSE = {"rtol": 0.0, "atol": 1e-6}
"""The code is the same, but a loaded tensor may lie elsewhere in memory, where a kernel may add in another order."""
SMALL = ModelConfig(
    embed_dim=16,
    vision=VisionConfig(width=16, head_width=8, layers=2, patch_size=4, image_size=12, embed_unc=True),
    text=TextConfig(width=16, heads=2, layers=2, context_length=6, vocab_size=20, norm_eps=1e-6),
    init_logit_bias=-10.0,
)
"""Small, in the layout of the released models."""


def _with(vision, text, **model):
    return replace(SMALL, vision=replace(SMALL.vision, **vision), text=replace(SMALL.text, **text), **model)


OPTIONS = {
    "released": SMALL,
    "points, no bias": _with({"embed_unc": False}, {"embed_unc": False}, init_logit_bias=None),
    "layer scales": _with({"ls_init_value": 0.3, "no_ln_pre": True}, {"ls_init_value": 0.2, "mlp_ratio": 2.0}),
    "hidden": _with({"unc_seen": False}, {"unc_seen": False, "log_var_source": "unc"}, quick_gelu=True),
    "map": _with({"pool_type": "map", "unc_seen": False}, {"embed_cls": False, "pool_type": "last"}),
    "native": _with(
        {"pool_type": "map", "unc_seen": False, "image_seq_len": 9}, {"unc_seen": False, "log_var_source": "unc"}
    ),
    "clip": _with(
        {"image_size": (8, 12)},
        {"embed_cls": False, "no_causal_mask": False, "unc_seen": False, "log_var_source": "unc", "pool_type": "eos"},
    ),
}


def _model(config):
    torch.manual_seed(0)
    model = ProLIP(config).eval()
    for parameter in model.parameters():  # no parameter that is zero or one and could be left out
        nn.init.normal_(parameter, std=0.1)
    return model


def _exported(model, folder, **settings):
    """The model as transformers saves it."""
    exported = ProLIPModel(ProLIPConfig(**to_official_json(model.config), **settings))
    exported.load_state_dict(model.state_dict())
    exported.save_pretrained(folder)
    return folder


def _inputs(config):
    torch.manual_seed(1)
    ids = torch.randint(0, config.text.vocab_size, (2, config.text.context_length))
    if config.vision.image_seq_len is not None:
        return Patches.of([torch.randn(3, 4 * rows, 4 * columns) for rows, columns in ((2, 3), (1, 5), (3, 3))], 4), ids
    return torch.randn(3, 3, *config.vision.height_and_width), ids


@torch.no_grad()
def _check_same(loaded, model):
    images, ids = _inputs(model.config)
    image, text = model.encode_image(images), model.encode_text(ids)
    bias = 0.0 if model.logit_bias is None else model.logit_bias
    pixels = {"pixel_values": images}
    if isinstance(images, Patches):
        pixels = {"pixel_values": images.patches, "spatial_shapes": images.grids}
    output = loaded(input_ids=ids, **pixels)
    for found, expected in (
        (Gaussian(output.image_mean, output.image_log_var), image),
        (Gaussian(output.text_mean, output.text_log_var), text),
    ):
        torch.testing.assert_close(found.mean, expected.mean, **CLOSE)
        torch.testing.assert_close(found.log_var, expected.log_var, **CLOSE)
    expected = csd_logits(image, text, model.logit_scale.exp(), bias)
    torch.testing.assert_close(output.logits_per_image, expected, rtol=0.0, atol=1e-5)
    torch.testing.assert_close(output.logits_per_text, expected.T, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_exported_model_has_our_gaussians_and_logits(name, tmp_path):
    model = _model(OPTIONS[name])
    _check_same(ProLIPModel.from_pretrained(_exported(model, tmp_path)), model)


def test_a_model_saved_by_transformers_loads_in_prolip(tmp_path):
    model = _model(OPTIONS["clip"])
    folder = _exported(model, tmp_path, pad_token_id=1)
    back = load_network(folder)
    assert back.config == model.config
    assert all(torch.equal(back.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


@torch.no_grad()
def test_a_single_tower_returns_mean_and_log_variance():
    network = ProLIPModel(ProLIPConfig(**to_official_json(SMALL))).eval()
    pixels, ids = _inputs(SMALL)
    for output, kind in ((network(pixel_values=pixels), "image"), (network(input_ids=ids), "text")):
        assert set(output) == {"last_hidden_state", "pooler_output", f"{kind}_mean", f"{kind}_log_var"}
        mean, log_var = output.last_hidden_state.unbind(1)
        assert torch.equal(mean, output[f"{kind}_mean"])
        assert torch.equal(mean, output.pooler_output)
        assert torch.equal(log_var, output[f"{kind}_log_var"])
    assert torch.equal(network(pixel_values=pixels, return_dict=False)[0], network(pixel_values=pixels)[0])
    assert torch.equal(network.get_image_features(pixels).image_mean, network(pixel_values=pixels).image_mean)
    assert torch.equal(network.get_text_features(ids).text_mean, network(input_ids=ids).text_mean)
    with pytest.raises(ValueError, match="input_ids"):
        network()


@torch.no_grad()
def test_rows_are_padded_to_the_full_context():
    network = ProLIPModel(ProLIPConfig(**to_official_json(SMALL), pad_token_id=1)).eval()
    short, whole = torch.tensor([[5, 6, 7]]), torch.tensor([[5, 6, 7, 1, 1, 1]])
    assert torch.equal(network(input_ids=short).text_mean, network(input_ids=whole).text_mean)
    network.config.pad_token_id = None
    for ids in (short, torch.zeros(1, 7, dtype=torch.long)):
        with pytest.raises(ValueError, match="6"):
            network(input_ids=ids)
