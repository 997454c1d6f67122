"""Locks towers for fine-tuning: which parameters train.

The log-variance heads and the similarity's scale and bias always train: growing variances shift every logit. [UNC]
vectors train unless `unc_vectors` freezes them. Training one takes a backward pass through all blocks of its frozen
tower, and changes the means if other tokens attend to it (`unc_seen`).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from prolip.errors import UserError
from prolip.models.config import LockConfig
from prolip.models.prolip import ProLIP

UNC_VECTORS = ("visual.unc_embedding", "text.unc_emb")
LOG_VAR_HEADS = ("visual.uncertainty_proj.", "text.text_uncertainty_projection.")
"""Prefixes of their parameters' names."""

Group = Sequence[nn.Module | nn.Parameter | None]


def lock_parameters(model: ProLIP, config: LockConfig) -> None:
    """Turn off the gradients of all parameters of a model (not wrapped) that must not train.

    Call it before wrapping the model for data parallelism, which waits for the gradients of all others.

    Raises:
        UserError: more groups should train than the tower has.
    """
    kept = LOG_VAR_HEADS if config.unc_vectors else (*UNC_VECTORS, *LOG_VAR_HEADS)
    towers = (
        ("image", config.image, "visual.", _image_groups(model), config.image_unlocked_groups),
        ("text", config.text, "text.", _text_groups(model), config.text_unlocked_groups),
    )
    for tower, locked, prefix, groups, num_unlocked in towers:
        if num_unlocked > len(groups):
            raise UserError(f"lock.{tower}_unlocked_groups", f"must be at most {len(groups)}", num_unlocked)
        if locked:
            _lock(model, prefix, kept, groups[len(groups) - num_unlocked :])


def _lock(model: ProLIP, prefix: str, kept: tuple[str, ...], unlocked: list[Group]) -> None:
    for name, parameter in model.named_parameters():
        if name.startswith(prefix) and not name.startswith(kept):
            parameter.requires_grad_(False)
    for group in unlocked:
        for part in group:
            if part is not None:
                part.requires_grad_(True)


def _image_groups(model: ProLIP) -> list[Group]:
    tower = model.visual
    *blocks, last = tower.transformer.blocks()
    inputs = (tower.conv1, tower.class_embedding, tower.positional_embedding, tower.ln_pre)
    return [inputs, *([block] for block in blocks), (last, tower.ln_post), (tower.attn_pool, tower.proj)]


def _text_groups(model: ProLIP) -> list[Group]:
    tower = model.text
    *blocks, last = tower.transformer.blocks()
    inputs = (tower.token_embedding, tower.positional_embedding, tower.cls_emb)
    return [inputs, *([block] for block in blocks), (last, tower.ln_final), (tower.text_projection,)]
