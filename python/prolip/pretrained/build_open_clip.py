"""Build models of open_clip by name, with open_clip itself, which is an extra."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from prolip.errors import UserError
from prolip.models.open_clip import StartError


def import_open_clip() -> Any:
    """Import open_clip, which only the extra `open_clip` installs.

    Raises:
        UserError: it is not installed.
    """
    try:
        import open_clip
    except ModuleNotFoundError as error:
        if error.name != "open_clip":
            raise
        raise UserError("models of open_clip need open_clip: pip install 'prolip[open_clip]'") from error
    return open_clip


def build_named(named: str, cache_dir: str | Path | None = None) -> tuple[str, nn.Module]:
    """Build the model named after "open_clip:" (NAME/TAG, NAME/FILE, hf-hub:... or local-dir:...); returns name, model.

    Downloads go to `cache_dir`, or to the hub client's cache.

    Raises:
        UserError: open_clip is not installed.
        StartError: open_clip knows no such model or weights.
    """
    name, _, weights = (named, "", "") if named.startswith(("hf-hub:", "local-dir:")) else named.partition("/")
    return name, build(name, weights or None, cache_dir)


@contextmanager
def without_steps() -> Iterator[None]:
    """Drop what open_clip logs of each step, ten lines per model, on the root logger itself; warnings stay."""

    def is_warning(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING

    root = logging.getLogger()
    root.addFilter(is_warning)
    try:
        yield
    finally:
        root.removeFilter(is_warning)


def build(name: str, pretrained: str | Path | None, cache_dir: str | Path | None = None) -> nn.Module:
    """Build an open_clip model with the weights of a tag or a file; "hf-hub:..." names bring their own.

    Raises:
        UserError: open_clip is not installed.
        StartError: open_clip knows no such model or weights.
    """
    open_clip = import_open_clip()
    try:
        with without_steps():
            built: nn.Module = open_clip.create_model(
                name,
                pretrained=None if pretrained is None else str(pretrained),
                weights_only=True,
                require_pretrained=True,
                cache_dir=None if cache_dir is None else str(cache_dir),
            )
    except (RuntimeError, OSError, SafetensorError) as error:
        weights = "" if pretrained is None else f" with {pretrained}"
        raise StartError(f"open_clip cannot build {name}{weights}: {error}") from error
    return built
