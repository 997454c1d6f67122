"""Which parameters a run trains: all of them, or what locked towers leave.

Log-variance heads are never locked, nor are the similarity's scale and bias, since variances that grow shift every
pair's logit. [UNC] vectors train as well unless they are locked by name. (Their position rows do not in a locked tower:
they are only ever added to a vector that learns as much without them.) So both towers locked train the new [UNC] alone.

What a locked tower saves: gradients and moments of its weights, and the product that makes each weight's gradient.
While its [UNC] vector trains, the gradient still goes back through all blocks to it, and where other tokens attend to
[UNC] (`unc_seen`, as in the released models) the means move with it. With the vector locked as well, no graph is kept
below the head, and the means stay what they were.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from prolip.errors import UserError
from prolip.models.config import LockConfig
from prolip.models.prolip import ProLIP

UNC_VECTORS = ("visual.unc_embedding", "text.unc_emb")
"""Names of what [UNC] starts as."""
LOG_VAR_HEADS = ("visual.uncertainty_proj.", "text.text_uncertainty_projection.")
"""How names of the log-variance heads' parameters start."""

Group = Sequence[nn.Module | nn.Parameter | None]


def lock_parameters(model: ProLIP, config: LockConfig, *, trains_bias: bool = True) -> None:
    """Take the gradient from every parameter that a run must not train.

    To be called before the model is wrapped for data parallelism, which waits for the gradients of all others.

    Args:
        model: the bare model.
        config: towers that are locked.
        trains_bias: whether the loss reads the similarity's bias.

    Raises:
        UserError: more groups are unlocked than the tower has.
    """
    kept = LOG_VAR_HEADS if config.unc_vectors else (*UNC_VECTORS, *LOG_VAR_HEADS)
    if config.image:
        _check_groups("image", config.image_unlocked_groups, groups := _image_groups(model))
        _lock(model, "visual.", kept, groups[len(groups) - config.image_unlocked_groups :])
    if config.text:
        _check_groups("text", config.text_unlocked_groups, groups := _text_groups(model))
        _lock(model, "text.", kept, groups[len(groups) - config.text_unlocked_groups :])
    if model.logit_bias is not None and not trains_bias:
        model.logit_bias.requires_grad_(False)


def _check_groups(tower: str, num_unlocked: int, groups: list[Group]) -> None:
    if num_unlocked > len(groups):
        raise UserError(f"lock.{tower}_unlocked_groups is {num_unlocked}: the tower has {len(groups)} groups")


def _lock(model: ProLIP, prefix: str, kept: tuple[str, ...], unlocked: list[Group]) -> None:
    for name, parameter in model.named_parameters():
        if name.startswith(prefix) and not name.startswith(kept):
            parameter.requires_grad_(False)
    for group in unlocked:
        for part in group:
            if part is not None:
                part.requires_grad_(True)


def _image_groups(model: ProLIP) -> list[Group]:
    """The image tower from its input to its end."""
    tower = model.visual
    *blocks, last = tower.transformer.blocks()
    inputs = (tower.conv1, tower.class_embedding, tower.positional_embedding, tower.ln_pre)
    return [inputs, *([block] for block in blocks), (last, tower.ln_post), (tower.attn_pool, tower.proj)]


def _text_groups(model: ProLIP) -> list[Group]:
    """The text tower from its input to its end."""
    tower = model.text
    *blocks, last = tower.transformer.blocks()
    inputs = (tower.token_embedding, tower.positional_embedding, tower.cls_emb)
    return [inputs, *([block] for block in blocks), (last, tower.ln_final), (tower.text_projection,)]
