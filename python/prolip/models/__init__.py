"""The ProLIP model and its configuration."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from prolip.models.architectures import ARCHITECTURES
from prolip.models.config import LockConfig, ModelConfig, TextConfig, VisionConfig

if TYPE_CHECKING:
    from prolip.models.freeze import lock_parameters
    from prolip.models.prolip import ProLIP, ProLIPOutput

__all__ = [
    "ARCHITECTURES",
    "LockConfig",
    "ModelConfig",
    "ProLIP",
    "ProLIPOutput",
    "TextConfig",
    "VisionConfig",
    "lock_parameters",
]

_LAZY = {"ProLIP": "prolip", "ProLIPOutput": "prolip", "lock_parameters": "freeze"}


def __getattr__(name: str) -> Any:
    """Import what needs torch on first use, so that configurations can be read without it."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
