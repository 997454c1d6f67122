"""Check that the weights that a run starts from exist and fit its model (`prolip train --dry-run`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prolip.errors import UserError
from prolip.models import ModelConfig
from prolip.pretrained.build_open_clip import import_open_clip
from prolip.pretrained.sources import HUB_PREFIX, OPEN_CLIP_PREFIX, new_model, resolve
from prolip.pretrained.tokenizer import OPEN_CLIP_CONFIG, open_clip_config
from prolip.train.config import TrainConfig

_SIZES = {
    "vision": ("layers", "width", "patch_size", "image_size"),
    "text": ("layers", "width", "heads", "context_length", "vocab_size"),
}
_RESIZED = {"vision.image_size", "text.context_length", "text.vocab_size"}
"""Sizes that may differ if tables are resized."""


def check_start(config: TrainConfig) -> str:
    """Open the start of a run, and return a line that says what was found.

    Local weights are loaded into the model. Remote weights are not downloaded; only their sizes are compared.

    Raises:
        UserError: there is no such start, or it does not fit; the message names the sizes or tensors.
    """
    start = config.start_from
    if start is None:
        return "random weights"
    source = resolve(start)
    if source.repository is not None:
        _compare(config, start, _sizes(source.architecture()))
        return f"{start} exists, and its sizes fit; its weights were not downloaded"
    if source.open_clip is not None:
        remote = _remote_open_clip(source.open_clip)
        if remote is not None:
            _compare(config, start, remote)
            return f"{start} exists, and its sizes fit; its weights were not downloaded"
    new_model(config.model, start, config.start_resize)
    return f"{start} fits"


def _remote_open_clip(named: str) -> dict[str, Any] | None:
    """Return the sizes of an open_clip model whose weights would be downloaded; None if they are local.

    Raises:
        UserError: open_clip knows no such model or weights, or the hub has no such repository.
    """
    if named.startswith("local-dir:"):
        return None
    if named.startswith(HUB_PREFIX):
        found = open_clip_config(named)
        if not found:
            raise UserError(f"start_from: the repository must have {OPEN_CLIP_CONFIG} (got {OPEN_CLIP_PREFIX}{named})")
        return _open_clip_sizes(found)
    open_clip = import_open_clip()
    name, _, weights = named.partition("/")
    tags = open_clip.list_pretrained_tags_by_model(name)
    if weights in tags:
        return _open_clip_sizes(open_clip.get_model_config(name) or {})
    if Path(weights).is_file():
        return None
    known = ", ".join(tags) or "none: open_clip has no such model"
    raise UserError(
        f"start_from is {OPEN_CLIP_PREFIX}{named}: {weights!r} is neither a file nor a tag of {name}, which has {known}"
    )


def _sizes(model: ModelConfig) -> dict[str, Any]:
    towers = [(tower, getattr(model, tower)) for tower in _SIZES]
    found = {f"{tower}.{name}": getattr(sizes, name) for tower, sizes in towers for name in _SIZES[tower]}
    return {"embed_dim": model.embed_dim, **found}


def _open_clip_sizes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sizes in a configuration of open_clip; those that it leaves to timm are unknown."""
    towers = [(tower, config.get(f"{tower}_cfg", {})) for tower in _SIZES]
    found = {f"{tower}.{name}": sizes[name] for tower, sizes in towers for name in _SIZES[tower] if name in sizes}
    return {"embed_dim": config["embed_dim"], **found} if "embed_dim" in config else found


def _compare(config: TrainConfig, start: str, sizes: Mapping[str, Any]) -> None:
    """Check that sizes of a start are those of the run's model.

    Raises:
        UserError: one differs.
    """
    own = _sizes(config.model)
    resized = _RESIZED if config.start_resize != "off" else set()
    different = [
        f"model.{name} is {own[name]}, the start's is {size}"
        for name, size in sizes.items()
        if own[name] != size and name not in resized
    ]
    if different:
        raise UserError(
            f"start_from is {start}, which does not fit: {'; '.join(different)}: write --architecture start_from for "
            "the start's own architecture"
        )
