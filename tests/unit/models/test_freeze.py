"""Locked towers: which parameters a step changes, and what their backward pass costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.support.small_step import CONFIG, run_of, step_of
from torch import Tensor

from prolip.distributed import Peers
from prolip.losses import ProlipLoss
from prolip.losses.config import LossConfig
from prolip.models import LockConfig, ProLIP, lock_parameters
from prolip.models.config import ModelConfig
from prolip.train.loop import take_step

DEEP = replace(CONFIG, vision=replace(CONFIG.vision, layers=3), text=replace(CONFIG.text, layers=2))
IMAGE_UNC = {"visual.unc_embedding", "visual.uncertainty_proj.weight", "visual.uncertainty_proj.bias"}
TEXT_UNC = {"text.unc_emb", "text.text_uncertainty_projection.weight", "text.text_uncertainty_projection.bias"}
ALWAYS = {*IMAGE_UNC, *TEXT_UNC, "logit_scale", "logit_bias"}


def names(model: ProLIP, *prefixes: str) -> set[str]:
    return {name for name, _ in model.named_parameters() if name.startswith(prefixes)}


def model_of(config: ModelConfig = DEEP) -> ProLIP:
    torch.manual_seed(0)
    return ProLIP(config)


def changed_by_two_steps(lock: LockConfig, loss: LossConfig | None = None, config: ModelConfig = DEEP) -> set[str]:
    model = model_of(config)
    lock_parameters(model, lock, trains_bias=loss is None or loss.reads_bias)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    run = run_of(model, precision="fp32")
    if loss is not None:
        run = replace(run, loss=ProlipLoss(loss, Peers()))
    for _ in range(2):
        take_step(run, step_of(8, 3))  # type: ignore[arg-type]
    return {name for name, parameter in model.named_parameters() if not torch.equal(before[name], parameter)}


def test_nothing_is_locked_by_default() -> None:
    assert changed_by_two_steps(LockConfig()) == names(model_of(), "")


def test_a_locked_image_tower_trains_only_its_unc_parameters() -> None:
    assert changed_by_two_steps(LockConfig(image=True)) == ALWAYS | names(model_of(), "text.")


def test_the_last_groups_of_a_text_tower_can_train() -> None:
    model, image = model_of(), names(model_of(), "visual.")
    groups = [
        {"text.text_projection.weight", "text.text_projection.bias"},
        names(model, "text.transformer.resblocks.1.", "text.ln_final."),
        names(model, "text.transformer.resblocks.0."),
        {"text.token_embedding.weight", "text.positional_embedding", "text.cls_emb"},
    ]
    for num in range(len(groups) + 1):
        lock = LockConfig(text=True, text_unlocked_groups=num)
        assert changed_by_two_steps(lock) == image | ALWAYS | set().union(*groups[:num])
    assert set().union(*groups) | TEXT_UNC == names(model, "text.")
    with pytest.raises(ValueError, match=r"lock\.text_unlocked_groups is 5: the tower has 4 groups"):
        lock_parameters(model, LockConfig(text=True, text_unlocked_groups=5))


@pytest.mark.parametrize("pool", ["tok", "map"])
def test_the_last_groups_of_an_image_tower_can_train(pool: Any) -> None:
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
        lock_parameters(again := model_of(config), LockConfig(image=True, image_unlocked_groups=num))
        trainable = {name for name, parameter in again.named_parameters() if parameter.requires_grad}
        assert trainable == names(model, "text.") | ALWAYS | set().union(*groups[:num])


def test_with_both_towers_locked_only_unc_parameters_train() -> None:
    assert changed_by_two_steps(LockConfig(image=True, text=True)) == ALWAYS


def test_unc_vectors_of_locked_towers_can_be_locked_too() -> None:
    heads = {name for name in ALWAYS if "uncertainty_proj" in name or "logit" in name}
    assert changed_by_two_steps(LockConfig(image=True, text=True, unc_vectors=True)) == heads
    assert changed_by_two_steps(LockConfig(image=True, unc_vectors=True)) == heads | names(model_of(), "text.")


def kept_for_the_backward_pass(model: ProLIP) -> int:
    """Numbers that a forward pass of the image tower keeps, parameters aside."""
    kept: dict[int, int] = {}
    parameters = {parameter.data_ptr() for parameter in model.parameters()}

    def note(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in parameters:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = model.encode_image(step_of(8, 3).images)
    assert output.log_var.requires_grad
    return sum(kept.values())


def test_a_locked_tower_keeps_fewer_activations() -> None:
    kept = []
    for lock in (LockConfig(), LockConfig(image=True), LockConfig(image=True, unc_vectors=True)):
        lock_parameters(model := model_of(), lock)
        kept.append(kept_for_the_backward_pass(model))
    everything, through_unc, head = kept
    assert through_unc < 0.7 * everything
    # The outputs of [CLS] and [UNC], whose tensor the head reads a row of.
    assert head <= 2 * 8 * DEEP.vision.width
    lock_parameters(model := model_of(), LockConfig(image=True, text=True, unc_vectors=True))
    step = step_of(8, 3)
    output = model(*step)
    assert not any(one.mean.requires_grad for one in (output.image, output.text, output.masked_image))
    # DEEP's head of texts reads the mean, and is trained.
    assert output.text.log_var.requires_grad


def test_means_do_not_change_with_towers_and_unc_locked() -> None:
    model = model_of()
    with torch.no_grad():
        before = model(*step_of(8, 3))
    lock_parameters(model, LockConfig(image=True, text=True, unc_vectors=True))
    run = run_of(model, precision="fp32")
    for _ in range(2):
        take_step(run, step_of(8, 3))  # type: ignore[arg-type]
    with torch.no_grad():
        after = model(*step_of(8, 3))
    for ours, theirs in ((after.image, before.image), (after.text, before.text)):
        torch.testing.assert_close(ours.mean, theirs.mean, atol=1e-6, rtol=0)
        assert float((ours.log_var - theirs.log_var).abs().max()) > 1e-4


def test_a_bias_that_the_loss_does_not_use_is_not_trained() -> None:
    loss = LossConfig(contrast="clip", inclusion_weight=0.1, inclusion_scale=2.0)
    assert changed_by_two_steps(LockConfig(), loss) == names(model_of(), "") - {"logit_bias"}
    # Data parallelism would wait for its gradient.
    lock_parameters(model := model_of(), LockConfig(), trains_bias=False)
    assert {name for name, parameter in model.named_parameters() if not parameter.requires_grad} == {"logit_bias"}


def test_impossible_lock_settings_are_named() -> None:
    with pytest.raises(ValueError, match=r"lock\.image_unlocked_groups is 2: only a locked tower"):
        LockConfig(image_unlocked_groups=2)
    with pytest.raises(ValueError, match=r"lock\.text_unlocked_groups is -1: it must not be negative"):
        LockConfig(text=True, text_unlocked_groups=-1)
    with pytest.raises(ValueError, match=r"lock\.unc_vectors is True: no tower is locked"):
        LockConfig(unc_vectors=True)
