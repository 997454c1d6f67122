"""Locked towers: which parameters a step changes."""

from dataclasses import replace

import pytest
import torch
from tests.support.refusals import refusal_of
from tests.support.small_step import CONFIG, run_of, step_of

from prolip.models import LockConfig, ProLIP, lock_parameters
from prolip.train.loop import take_step

DEEP = replace(CONFIG, vision=replace(CONFIG.vision, layers=3), text=replace(CONFIG.text, layers=2))
IMAGE_UNC = {"visual.unc_embedding", "visual.uncertainty_proj.weight", "visual.uncertainty_proj.bias"}
TEXT_UNC = {"text.unc_emb", "text.text_uncertainty_projection.weight", "text.text_uncertainty_projection.bias"}
ALWAYS = {*IMAGE_UNC, *TEXT_UNC, "logit_scale", "logit_bias"}


def names(model, *prefixes):
    return {name for name, _ in model.named_parameters() if name.startswith(prefixes)}


def model_of(config=DEEP):
    torch.manual_seed(0)
    return ProLIP(config)


TEXT = names(model_of(), "text.")
HEADS = {name for name in ALWAYS if "uncertainty_proj" in name or "logit" in name}


def trainable(lock, config=DEEP):
    lock_parameters(model := model_of(config), lock)
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_the_last_groups_of_a_text_tower_can_train():
    model, image = model_of(), names(model_of(), "visual.")
    groups = [
        {"text.text_projection.weight", "text.text_projection.bias"},
        names(model, "text.transformer.resblocks.1.", "text.ln_final."),
        names(model, "text.transformer.resblocks.0."),
        {"text.token_embedding.weight", "text.positional_embedding", "text.cls_emb"},
    ]
    for num in range(len(groups) + 1):
        lock = LockConfig(text=True, text_unlocked_groups=num)
        assert trainable(lock) == image | ALWAYS | set().union(*groups[:num])
    assert set().union(*groups) | TEXT_UNC == names(model, "text.")
    with refusal_of("lock.text_unlocked_groups"):
        lock_parameters(model, LockConfig(text=True, text_unlocked_groups=5))


@pytest.mark.parametrize("pool", ["tok", "map"])
def test_the_last_groups_of_an_image_tower_can_train(pool):
    config = replace(DEEP, vision=replace(DEEP.vision, pool_type=pool))
    model = model_of(config)
    cls = {"visual.class_embedding"} if pool == "tok" else set()
    groups = [
        {"visual.proj"} | names(model, "visual.attn_pool."),
        names(model, "visual.transformer.resblocks.2.", "visual.ln_post."),
        names(model, "visual.transformer.resblocks.1."),
        names(model, "visual.transformer.resblocks.0."),
        names(model, "visual.conv1.", "visual.ln_pre.", "visual.positional_embedding") | cls,
    ]
    for num in range(len(groups) + 1):
        lock = LockConfig(image=True, image_unlocked_groups=num)
        assert trainable(lock, config) == names(model, "text.") | ALWAYS | set().union(*groups[:num])


@pytest.mark.parametrize(
    ("lock", "expected"),
    [
        (LockConfig(image=True), ALWAYS | TEXT),
        (LockConfig(image=True, text=True), ALWAYS),
        (LockConfig(image=True, text=True, unc_vectors=True), HEADS),
        (LockConfig(image=True, unc_vectors=True), HEADS | TEXT),
    ],
)
def test_only_what_is_not_locked_trains(lock, expected):
    assert trainable(lock) == expected


def test_means_do_not_change_with_towers_and_unc_locked():
    model = model_of()
    with torch.no_grad():
        before = model(*step_of(8, 3))
    lock_parameters(model, LockConfig(image=True, text=True, unc_vectors=True))
    run = run_of(model, precision="fp32")
    for _ in range(2):
        take_step(run, step_of(8, 3))
    with torch.no_grad():
        after = model(*step_of(8, 3))
    for ours, theirs in ((after.image, before.image), (after.text, before.text)):
        torch.testing.assert_close(ours.mean, theirs.mean, atol=1e-6, rtol=0)
        assert float((ours.log_var - theirs.log_var).abs().max()) > 1e-4


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"image_unlocked_groups": 2}, "lock.image_unlocked_groups"),
        ({"text": True, "text_unlocked_groups": -1}, "lock.text_unlocked_groups"),
        ({"unc_vectors": True}, "lock.unc_vectors"),
    ],
)
def test_impossible_lock_settings_are_named(settings, field):
    with refusal_of(field):
        LockConfig(**settings)
