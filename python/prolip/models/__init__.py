"""The ProLIP model and its configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prolip.lazy import lazy_names
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

__getattr__ = lazy_names(
    __name__,
    {
        "prolip": ["ProLIP", "ProLIPOutput"],
        "freeze": ["lock_parameters"],
    },
)
