"""Which parameters a run trains: all of them, or what locked towers leave.

What ProLIP adds to a tower is never locked: its [UNC] vector and its log-variance head. (The position row of [UNC] is:
it is only ever added to that vector, which learns as much without it.) Nor are the similarity's scale and bias, since
variances that grow shift every pair's logit. So the new [UNC] alone is trained by locking both towers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from prolip.models.prolip import ProLIP

_NEVER_LOCKED = (
    "visual.unc_embedding",
    "visual.uncertainty_proj.",
    "text.unc_emb",
    "text.text_uncertainty_projection.",
)

Group = Sequence[nn.Module | nn.Parameter | None]


@dataclass(frozen=True, kw_only=True)
class LockConfig:
    """Towers that keep the weights they start with; [UNC] vectors, log-variance heads, scale and bias always train."""

    image: bool = False
    """Lock the image tower (LiT, arXiv:2111.07991)."""
    image_unlocked_groups: int = 0
    """Groups of a locked image tower that train all the same, counted from its end as open_clip does: what projects to
    the mean (with SigLIP's attention pool), the last block with the last norm, each block before it, the input."""
    text: bool = False
    """Lock the text tower. Both locked, the new [UNC] alone is trained."""
    text_unlocked_groups: int = 0
    """The same for a locked text tower: projection, last block with the last norm, each block before it, the input."""

    def __post_init__(self) -> None:
        for tower in ("image", "text"):
            groups = getattr(self, f"{tower}_unlocked_groups")
            if groups < 0:
                raise ValueError(f"lock.{tower}_unlocked_groups is {groups}: it must not be negative")
            if groups and not getattr(self, tower):
                raise ValueError(
                    f"lock.{tower}_unlocked_groups is {groups}: only a locked tower has some (lock.{tower})"
                )


def lock_parameters(model: ProLIP, config: LockConfig, *, trains_bias: bool = True) -> None:
    """Take the gradient from every parameter that a run must not train.

    To be called before the model is wrapped for data parallelism, which waits for the gradients of all others.

    Args:
        model: the bare model.
        config: towers that are locked.
        trains_bias: whether the loss reads the similarity's bias.

    Raises:
        ValueError: more groups are unlocked than the tower has.
    """
    if config.image:
        _lock(model, "visual.", _image_groups(model), config.image_unlocked_groups, "lock.image_unlocked_groups")
    if config.text:
        _lock(model, "text.", _text_groups(model), config.text_unlocked_groups, "lock.text_unlocked_groups")
    if model.logit_bias is not None and not trains_bias:
        model.logit_bias.requires_grad_(False)


def _lock(model: ProLIP, prefix: str, groups: list[Group], num_unlocked: int, field: str) -> None:
    if num_unlocked > len(groups):
        raise ValueError(f"{field} is {num_unlocked}: the tower has {len(groups)} groups")
    for name, parameter in model.named_parameters():
        if name.startswith(prefix) and not name.startswith(_NEVER_LOCKED):
            parameter.requires_grad_(False)
    for group in groups[len(groups) - num_unlocked :]:
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
