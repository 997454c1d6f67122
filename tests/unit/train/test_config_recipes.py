"""The recipes: published runs, controls, ablations and starts from other models."""

from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import open_clip
import pytest
import torch

from prolip.data import NativeConfig
from prolip.models import ARCHITECTURES, ProLIP
from prolip.models.convert_siglip2 import siglip2_config
from prolip.models.weights import fit_state
from prolip.train.config import known_recipes, load_config
from prolip.train.config.recipes import recipe_text
from prolip.train.cost import step_flops

SHARDS = ("--data.shards", "a.tar")
BASE = "vit-b16-datacomp-1b-1.28b"


def recipe(name):
    return load_config([name, *SHARDS])


def changed(one, other, prefix=""):
    """The settings of `other` that differ from those of `one`, by dotted key."""
    found = {}
    for field in fields(one):
        ours, theirs = getattr(one, field.name), getattr(other, field.name)
        if is_dataclass(ours):
            found |= changed(ours, theirs, f"{prefix}{field.name}.")
        elif ours != theirs:
            found[prefix + field.name] = theirs
    return found


def changes(name, base=BASE):
    found = changed(recipe(base), recipe(name))
    assert found.pop("out") == Path("runs") / name
    return found


def test_every_recipe_begins_with_what_it_is():
    assert len(known_recipes()) <= 22
    for name in known_recipes():
        assert recipe_text(name).startswith("# "), name


@pytest.mark.parametrize(
    ("name", "architecture"),
    [("vit-l16", "ViT-L-16"), ("vit-so400m14", "ViT-SO400M-14"), ("vit-h14", "ViT-H-14")],
)
def test_recipes_for_larger_models_change_only_size_and_accumulation(name, architecture):
    found = changes(f"{name}-datacomp-1b-1.28b")
    assert recipe(f"{name}-datacomp-1b-1.28b").model == ARCHITECTURES[architecture]
    # CLIP's vocabulary has no mask token.
    assert found.pop("data.mask.mask_id", None) == (286 if name == "vit-h14" else None)
    rest = {key for key in found if not key.startswith(("model.", "data.tokenizer."))}
    assert rest == {"architecture", "accumulate"}


@pytest.mark.parametrize(("start", "size"), [("siglip", "vit-l16"), ("siglip", "vit-so400m14"), ("dfn", "vit-h14")])
def test_the_larger_fine_tuned_models_start_in_the_released_architecture(start, size):
    name = f"finetune-{start}-{size}-1.28b"
    found = changes(name, f"{size}-datacomp-1b-1.28b")
    model, tag = found.pop("start_from").removeprefix("open_clip:").split("/")
    assert found == {"start_resize": "official"}
    assert tag in open_clip.list_pretrained_tags_by_model(model)
    described = open_clip.get_model_config(model)
    kind = open_clip.CustomTextCLIP if described.pop("custom_text", False) else open_clip.CLIP
    with torch.device("meta"):
        theirs, ours = kind(**described), ProLIP(recipe(name).model)
        fitted = fit_state(ours, theirs.state_dict(), "official")
    assert {key: tensor.shape for key, tensor in fitted.items()} == {
        key: tensor.shape for key, tensor in ours.state_dict().items()
    }


def native(token_budget, batch_divisor):
    """What "with-native" changes."""
    config = NativeConfig(
        seq_lens=(128, 256, 576),
        seq_len_probs=(0.4, 0.4, 0.2),
        token_budget=token_budget,
        batch_divisor=batch_divisor,
    )
    return {"model.vision.image_seq_len": 256, "data.mask.patch_draw": "sample", "data.native": config}


def test_the_native_recipe_costs_as_much_as_the_square_one():
    name = "vit-b16-naflex-datacomp-1b-1.28b"
    tower = {"model.vision.image_size": 256, "model.vision.pos_embed_interp_mode": "bicubic"}
    assert changes(name) == native(16_384 * 196, 256) | tower | {"architecture": "ViT-B-16-NaFlex"}
    per_sample = [step_flops(recipe(one)).total / recipe(one).samples_per_step for one in (name, BASE)]
    assert per_sample[0] == pytest.approx(per_sample[1], rel=0.02)
    assert recipe(name).total_steps == pytest.approx(recipe(BASE).total_steps, rel=0.02)


def test_an_addition_changes_any_recipe_alike():
    script = recipe(BASE).loss
    local = ("inclusion_weight", "masked_inclusion_weight", "vib_weight")
    additions = {
        "with-effective-weights": {f"loss.{name}": pytest.approx(32 * getattr(script, name)) for name in local},
        "with-exact": {
            "model.vision.final_norm": "once",
            "model.text.log_var_source": "unc",
            "data.mask.keep_ratio": 0.25,
            "loss.inclusion_form": "exact",
            "loss.vib_form": "exact",
        },
        "with-native": native(round(16_384 / (0.4 / 128 + 0.4 / 256 + 0.2 / 576)), 8),
        "with-resampling": {"data.mode": "resampled", "data.num_samples": 616 * 16_384},
    }
    assert [name for name in known_recipes() if name.startswith("with-")] == list(additions)
    for name, expected in additions.items():
        for base in (BASE, "vit-h14-datacomp-1b-1.28b"):
            assert changed(recipe(base), load_config([base, name, *SHARDS])) == expected


@pytest.mark.parametrize(("kind", "name"), [("clip", "ViT-B-16"), ("siglip", "ViT-B-16-SigLIP")])
def test_start_recipes_have_open_clips_architecture_and_tokenizer(kind, name):
    config = recipe(f"finetune-{kind}-vit-b16")
    start, tag = (config.start_from or "").removeprefix("open_clip:").split("/")
    assert start == name
    assert tag in open_clip.list_pretrained_tags_by_model(name)
    given = open_clip.get_model_config(name)
    text, vision = given["text_cfg"], given["vision_cfg"]
    ours = config.model
    assert ours.embed_dim == given["embed_dim"]
    assert (ours.text.width, ours.text.heads, ours.text.layers) == (text["width"], text["heads"], text["layers"])
    assert (ours.text.context_length, ours.text.vocab_size) == (text["context_length"], text["vocab_size"])
    assert ours.text.no_causal_mask == text.get("no_causal_mask", False)
    assert ours.text.pool_type == text.get("pool_type", "argmax")
    assert ours.text.proj_bias == text.get("proj_bias", False)
    assert ours.text.norm_eps == text.get("norm_kwargs", {}).get("eps", 1e-5)
    assert not ours.text.embed_cls
    assert ours.vision.pool_type == vision.get("timm_pool", "tok")
    assert ours.vision.image_size == vision["image_size"]


def test_the_recipe_for_siglip_2_has_the_architecture_in_its_file():
    model = recipe("finetune-siglip2-naflex").model
    theirs = siglip2_config({"text_config": {"vocab_size": 256_000}})
    assert replace(model, text=replace(model.text, tokenizer_clean="lower")) == theirs
