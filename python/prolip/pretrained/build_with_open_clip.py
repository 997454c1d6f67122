"""Build open_clip's models by name (an extra)."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from prolip.errors import UserError
from prolip.models.convert_open_clip import StartError


def import_open_clip() -> Any:
    """A UserError if its extra is not installed."""
    try:
        import open_clip
    except ModuleNotFoundError as error:
        if error.name != "open_clip":
            raise
        raise UserError("open_clip", "not installed; pip install 'prolip[open_clip]'") from error
    return open_clip


def build_named(named: str, cache_dir: str | Path | None = None) -> tuple[str, nn.Module]:
    """Build the model named after "open_clip:" (NAME/TAG, NAME/FILE, hf-hub:... or local-dir:...); returns name, model.

    Downloads go to `cache_dir`, or to the hub client's cache.

    Raises:
        UserError: open_clip is not installed.
        StartError: open_clip knows no such model or weights, or no weights are named.
    """
    if named.startswith(("hf-hub:", "local-dir:")):
        return named, build(named, None, cache_dir)
    name, _, weights = named.partition("/")
    open_clip = import_open_clip()
    if name not in (models := open_clip.list_models()):
        close = difflib.get_close_matches(name, models, n=1, cutoff=0.4)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise StartError(f"open_clip:{named}", f"open_clip has no such model{hint}")
    if not weights and (tags := open_clip.list_pretrained_tags_by_model(name)):
        raise StartError(f"open_clip:{named}", f"must name its weights, such as open_clip:{name}/{tags[0]}")
    return name, build(name, weights or None, cache_dir)


@contextmanager
def root_messages(level: int) -> Iterator[None]:
    """Hide a package's messages below `level` on the root logger, such as open_clip's ten lines per model."""

    def is_shown(record: logging.LogRecord) -> bool:
        return record.levelno >= level

    root = logging.getLogger()
    root.addFilter(is_shown)
    try:
        yield
    finally:
        root.removeFilter(is_shown)


def build(name: str, pretrained: str | Path | None, cache_dir: str | Path | None = None) -> nn.Module:
    """With the weights of a tag or a file; "hf-hub:..." names bring their own."""
    open_clip = import_open_clip()
    try:
        with root_messages(logging.WARNING):
            built: nn.Module = open_clip.create_model(
                name,
                pretrained=None if pretrained is None else str(pretrained),
                weights_only=True,
                require_pretrained=True,
                cache_dir=None if cache_dir is None else str(cache_dir),
            )
    except (RuntimeError, OSError, SafetensorError, TypeError) as error:  # TypeError: an unknown setting
        raise StartError(f"open_clip:{name}/{pretrained or ''}", f"open_clip cannot build it: {error}") from error
    return built
