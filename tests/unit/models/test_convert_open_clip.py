"""Starting from open_clip's models: the same embeddings without [UNC], and what [UNC] adds."""

import math
from dataclasses import replace

import open_clip
import pytest
import timm
import torch
from timm.models import VisionTransformer
from timm.models.naflexvit import NaFlexVit
from torch import Tensor, nn

from prolip.images.tensors import OPENAI_MEAN, OPENAI_STD, Patches
from prolip.models import ProLIP
from prolip.models.convert_open_clip import StartError, start_from
from prolip.models.hub import save_pretrained
from prolip.models.weights import WeightsError
from prolip.pretrained.sources import load_network, new_model

CLIP_VISION = {"layers": 2, "width": 32, "head_width": 8, "patch_size": 8, "image_size": 32}
CLIP_TEXT = {"context_length": 7, "vocab_size": 40, "width": 24, "heads": 3, "layers": 2}
SIGLIP_VISION = {"timm_model_name": "vit_prolip_test", "timm_pool": "map", "timm_proj": "none", "image_size": 32}
SIGLIP_TEXT = {
    **CLIP_TEXT,
    "width": 16,
    "heads": 2,
    "no_causal_mask": True,
    "proj_bias": True,
    "pool_type": "last",
    "norm_kwargs": {"eps": 1e-6},
}
PARTS = ("weight", "bias")
TANH = {"act_kwargs": {"approximate": "tanh"}}


@timm.models.register_model
def vit_prolip_test(pretrained=False, **settings):
    """A tiny SigLIP tower; `create_model` finds it by its name."""
    del pretrained
    known = ("img_size", "global_pool", "num_classes", "act_layer", "class_token", "qk_norm")
    shape = {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 16,
        "depth": 2,
        "num_heads": 2,
        "mlp_ratio": 3.7,
    }
    plain = {
        "class_token": False,
        "global_pool": "map",
        **{name: value for name, value in settings.items() if name in known},
    }
    tower = VisionTransformer(**shape, **plain)
    tower.default_cfg = {}
    return tower


@timm.models.register_model
def vit_prolip_test_tanh(pretrained=False, **settings):
    """The same with the activation of SigLIP 2."""
    return vit_prolip_test(pretrained, act_layer="gelu_tanh", **settings)


@timm.models.register_model
def naflexvit_prolip_test(pretrained=False, **settings):
    """SigLIP 2's tower for native aspect."""
    del pretrained
    shape = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "act_layer": "gelu_tanh"}
    known = {name: value for name, value in settings.items() if name in {"global_pool", "num_classes"}}
    tower = NaFlexVit(**shape, pos_embed_grid_size=(4, 4), pos_embed_interp_mode="bilinear", **known)
    tower.default_cfg = {}
    return tower


@timm.models.register_model
def vit_prolip_naflex(pretrained=False, **settings):
    """A classic tower that timm converts: a convolution, bicubic positions."""
    del pretrained
    small = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "img_size": (32, 24), "class_token": False}
    wanted = {"use_naflex": True, "embed_proj_type": "conv", **small, **settings}
    return timm.create_model("vit_base_patch16_siglip_224", **wanted)


def random_everywhere(model):
    """Every tensor random, so that none that is lost or misplaced stays hidden behind a zero or a one."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "logit" not in name:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data = (
                parameter.data * 0.5 + noise * max(parameter.shape[-1], 4) ** -0.5 if parameter.ndim else noise
            )
    return model.eval()


MODELS = {
    "clip": (open_clip.CLIP, {"vision_cfg": CLIP_VISION, "text_cfg": CLIP_TEXT}),
    "clip-quickgelu": (open_clip.CLIP, {"vision_cfg": CLIP_VISION, "text_cfg": CLIP_TEXT, "quick_gelu": True}),
    "clip-custom-text": (open_clip.CustomTextCLIP, {"vision_cfg": CLIP_VISION, "text_cfg": CLIP_TEXT}),
    "clip-eos-scales": (
        open_clip.CLIP,
        {
            "vision_cfg": {**CLIP_VISION, "ls_init_value": 0.1, "no_ln_pre": True, "image_size": (32, 24)},
            "text_cfg": {**CLIP_TEXT, "pool_type": "eos", "eos_id": 5, "ls_init_value": 0.1, "mlp_ratio": 3.7},
        },
    ),
    "siglip": (
        open_clip.CustomTextCLIP,
        {"vision_cfg": SIGLIP_VISION, "text_cfg": SIGLIP_TEXT, "init_logit_bias": -12.0},
    ),
    "siglip2": (
        open_clip.CustomTextCLIP,
        {
            "vision_cfg": {**SIGLIP_VISION, "timm_model_name": "vit_prolip_test_tanh"},
            "text_cfg": {**SIGLIP_TEXT, **TANH},
            "init_logit_bias": -12.0,
        },
    ),
    "siglip2-naflex": (
        open_clip.CustomTextCLIP,
        {
            "vision_cfg": {**SIGLIP_VISION, "timm_model_name": "naflexvit_prolip_test", "image_size": 48},
            "text_cfg": {**SIGLIP_TEXT, **TANH},
            "init_logit_bias": -12.0,
        },
    ),
    "siglip-converted": (
        open_clip.CustomTextCLIP,
        {
            "vision_cfg": {**SIGLIP_VISION, "timm_model_name": "vit_prolip_naflex"},
            "text_cfg": SIGLIP_TEXT,
            "init_logit_bias": -12.0,
        },
    ),
    "siglip-i18n": (
        open_clip.CustomTextCLIP,
        {
            "vision_cfg": SIGLIP_VISION,
            "text_cfg": {**SIGLIP_TEXT, "proj_type": "none", "proj_bias": False},
            "init_logit_bias": -12.0,
        },
    ),
    "timm-projected": (
        open_clip.CustomTextCLIP,
        {"vision_cfg": {**SIGLIP_VISION, "timm_proj": "linear"}, "text_cfg": CLIP_TEXT},
    ),
}


def built(name):
    kind, settings = MODELS[name]
    torch.manual_seed(0)
    return random_everywhere(kind(16, **settings))


def inputs(model):
    generator = torch.Generator().manual_seed(1)
    height, width = model.visual.image_size if isinstance(model.visual.image_size, tuple) else (32, 32)
    ids = torch.randint(6, 40, (5, 7), generator=generator)
    ids[torch.arange(5), torch.tensor([6, 2, 4, 3, 5])] = 5
    return torch.randn(3, 3, height, width, generator=generator), ids


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", list(MODELS))
def test_only_the_unc_parameters_are_new(name, tmp_path):
    theirs = built(name)
    images, ids = inputs(theirs)
    torch.manual_seed(1)
    ours = start_from(theirs)
    plain = start_from(theirs, uncertainty=False)
    own, taken = ours.state_dict(), plain.state_dict()
    for key, tensor in taken.items():
        table = own[key]
        if key == "visual.positional_embedding":  # [UNC] follows [CLS] where there is one
            row = ours.visual.num_specials - 1
            table = torch.cat([table[:row], table[row + 1 :]])
        elif key == "text.positional_embedding":
            table = table[:-1]
        assert torch.equal(table, tensor), key
    output = ours(images, ids[None])
    for gaussian in (output.image, output.text):
        assert float(gaussian.log_var.detach().mean()) == pytest.approx(-10, abs=1.5)
    score = sum(gaussian.mean.sum() + gaussian.log_var.sum() for gaussian in (output.image, output.text))
    assert isinstance(score, Tensor)
    score.backward()
    silent = {key for key, parameter in ours.named_parameters() if parameter.grad is None}
    assert silent == {"logit_scale", "logit_bias"}
    # It is a model like any other: saved, loaded, strict.
    save_pretrained(ours, tmp_path)
    again = load_network(tmp_path)
    assert again.config == ours.config
    with torch.no_grad():
        assert torch.equal(again.encode_text(ids).mean, ours.encode_text(ids).mean)


@pytest.mark.parametrize("name", list(MODELS))
def test_with_unc_the_means_still_equal_open_clips(name):
    theirs = built(name)
    images, ids = inputs(theirs)
    ours = start_from(theirs)
    kept = torch.tensor([0, 2, 3])
    with torch.no_grad():
        close(ours.encode_image(images, normalize=False).mean, theirs.encode_image(images))
        close(ours.encode_text(ids, normalize=False).mean, theirs.encode_text(ids))
        # Patches that are removed and texts that are shorter leave [UNC] its place.
        plain = start_from(theirs, uncertainty=False)
        close(ours.encode_image(images, kept).mean, plain.encode_image(images, kept).mean)
        close(ours.encode_text(ids[:, :6]).mean, plain.encode_text(ids[:, :6]).mean)
        before = ours.encode_image(images), ours.encode_text(ids)
        for vector in (ours.visual.unc_embedding, ours.text.unc_emb):
            vector.mul_(-3)
        after = ours.encode_image(images), ours.encode_text(ids)
        seen = ProLIP(replace(ours.config, vision=replace(ours.config.vision, unc_seen=True)))
        seen.load_state_dict(ours.state_dict())
        assert not torch.allclose(seen.encode_image(images).mean, after[0].mean, atol=1e-3)
    for ours_before, ours_after in zip(before, after, strict=True):
        close(ours_after.mean, ours_before.mean)
        assert float((ours_after.log_var - ours_before.log_var).abs().max()) > 1e-2


def test_scale_and_bias_are_kept_from_siglip_and_set_to_the_released_for_clip():
    clip, siglip = start_from(built("clip")), start_from(built("siglip"))
    assert float(clip.logit_scale.detach().exp()) == pytest.approx(10)
    assert float(clip.logit_bias.detach()) == -10.0
    assert float(siglip.logit_scale.detach()) == pytest.approx(math.log(1 / 0.07))
    assert float(siglip.logit_bias.detach()) == -12.0


@pytest.mark.parametrize("name", ["siglip2-naflex", "siglip-converted"])
def test_native_towers_equal_timms_for_padded_images_of_any_shape(name):
    theirs = built(name)
    ours = start_from(theirs)
    images = [torch.randn(3, 8 * rows, 8 * columns) for rows, columns in ((4, 4), (2, 7), (9, 1), (6, 6), (1, 1))]
    patches = Patches.of(images, 8)
    batch = {"patches": patches.patches, "patch_coord": patches.coords, "patch_valid": patches.valid}
    is_linear = theirs.visual.trunk.embeds.is_linear
    with torch.no_grad():
        one_by_one = torch.cat([theirs.encode_image(image[None]) for image in images])
        close(ours.encode_image(patches, normalize=False).mean, theirs.encode_image(batch) if is_linear else one_by_one)
    vision = ours.config.vision
    assert (vision.grid, vision.image_seq_len) == (((4, 4), 36) if is_linear else ((4, 3), 16))


@pytest.mark.parametrize("name", ["clip", "siglip", "siglip-converted"])
def test_the_first_layer_is_adapted_to_the_loaders_normalisation(name):
    theirs = built(name)
    theirs.visual.preprocess_cfg = {"mean": (0.5, 0.4, 0.3), "std": (0.5, 0.6, 0.7)}
    shares = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))

    def normalised(mean, std):
        return (shares - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]

    with torch.no_grad():
        ours = start_from(theirs, uncertainty=False)
        expected = theirs.encode_image(normalised((0.5, 0.4, 0.3), (0.5, 0.6, 0.7)))
        close(ours.encode_image(normalised(OPENAI_MEAN, OPENAI_STD), normalize=False).mean, expected)


NEW = {"visual.unc_embedding", "text.unc_emb", "text.cls_emb"}
NEW |= {f"{head}.{part}" for head in ("visual.uncertainty_proj", "text.text_uncertainty_projection") for part in PARTS}


@pytest.mark.parametrize(
    ("name", "specials", "new"),
    [
        (
            "siglip",
            0,
            {f"visual.ln_{place}.{part}" for place in ("pre", "post") for part in PARTS}
            | {"visual.class_embedding", "visual.proj"},
        ),
        ("clip", 1, {f"text.text_projection.{part}" for part in PARTS}),
    ],
)
def test_the_released_architecture_takes_what_the_released_loader_does(name, specials, new, tmp_path, monkeypatch):
    theirs = built(name)
    tower, is_clip = getattr(theirs, "text", theirs), name == "clip"
    like = start_from(theirs).config
    config = replace(
        like,
        vision=replace(like.vision, pool_type="tok", no_ln_pre=False, unc_seen=True, final_norm="twice"),
        text=replace(like.text, embed_cls=True, no_causal_mask=True, unc_seen=True, proj_bias=True, vocab_size=45),
        init_logit_scale=2.0,
        init_logit_bias=-9.0,
    )
    state = {f"module.{name}": tensor for name, tensor in theirs.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, path := tmp_path / "weights.pt")  # as open_clip's training saves it
    described = {"embed_dim": 16, "custom_text": not is_clip, **MODELS[name][1]}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-for-prolip", described)

    def started(source, config=config):
        torch.manual_seed(3)
        return new_model(config, source, "official")

    fresh, ours, of_file = (started(source) for source in (None, f"open_clip:tiny-for-prolip/{path}", str(path)))
    own, before = ours.state_dict(), fresh.state_dict()
    assert all(torch.equal(tensor, own[key]) for key, tensor in of_file.state_dict().items())
    assert {key for key in own if torch.equal(own[key], before[key])} == NEW | new

    if is_clip:
        blocks, filters, rows = theirs.visual.transformer, theirs.visual.conv1, theirs.visual.positional_embedding
    else:
        trunk = theirs.visual.trunk
        blocks, filters, rows = trunk.blocks, trunk.patch_embed.proj, trunk.pos_embed[0]
    for layers, expected in ((ours.visual.transformer, blocks), (ours.text.transformer, tower.transformer)):
        x = torch.randn(2, 5, layers.blocks()[0].ln_1.weight.numel())
        close(layers(x, slice(None)), expected(x))
    assert torch.equal(ours.visual.conv1.weight, filters.weight)
    unc = before["visual.positional_embedding"][specials:2]
    assert torch.equal(own["visual.positional_embedding"], torch.cat([rows[:specials], unc, rows[specials:]]))
    stretched = nn.functional.interpolate(tower.positional_embedding.T[None], 9, mode="linear")[0].T
    close(own["text.positional_embedding"], stretched)
    words = torch.cat([tower.token_embedding.weight, before["text.token_embedding.weight"][40:]])
    assert torch.equal(own["text.token_embedding.weight"], words)
    similarity = (-10.0, math.log(10)) if is_clip else (-12.0, math.log(1 / 0.07))
    assert (float(own["logit_bias"]), float(own["logit_scale"])) == pytest.approx(similarity)

    with pytest.raises(WeightsError, match=r"missing +visual\.transformer\.resblocks\.2"):
        started(str(path), replace(config, vision=replace(config.vision, layers=3)))


@pytest.mark.parametrize("name", ["vit-b-32/tag", "none/tag", "ViT-B-32/no-such-tag", "ViT-B-32"])
def test_an_unknown_open_clip_model_or_tag_is_refused(name):
    with pytest.raises(StartError, match=name.partition("/")[0]):
        load_network(f"open_clip:{name}")


@pytest.mark.parametrize(
    "settings",
    [
        {"vision_cfg": {**CLIP_VISION, "layers": [1, 1, 1, 1], "width": 8}},
        {"vision_cfg": {**CLIP_VISION, "pool_type": "avg"}},
        {"vision_cfg": {**CLIP_VISION, "attentional_pool": True}},
        {"vision_cfg": {**SIGLIP_VISION, "timm_pool": "avg"}},
        {"vision_cfg": {**SIGLIP_VISION, "timm_proj": "mlp"}},
        {"vision_cfg": SIGLIP_VISION, "quick_gelu": True},
        {"text_cfg": {**CLIP_TEXT, "pool_type": "first"}},
        {"text_cfg": {**CLIP_TEXT, "embed_cls": True}},
        {"text_cfg": {**CLIP_TEXT, "qk_norm": True}},
    ],
)
def test_unsupported_towers_are_refused(settings):
    model = open_clip.CustomTextCLIP(16, **{"vision_cfg": CLIP_VISION, "text_cfg": CLIP_TEXT, **settings})
    with pytest.raises(StartError):
        start_from(model)


def test_a_native_tower_that_interpolates_in_another_way_is_refused():
    theirs = built("siglip2-naflex")
    theirs.visual.trunk.embeds.pos_embed_ar_preserving = True
    with pytest.raises(StartError, match="pos_embed_ar_preserving"):
        start_from(theirs)


def test_weights_without_a_counterpart_are_named():
    theirs = built("siglip")
    theirs.visual.trunk.blocks[0].attn.norm = nn.LayerNorm(16)
    with pytest.raises(StartError, match=r"blocks\.0\.attn\.norm\.weight"):
        start_from(theirs)
