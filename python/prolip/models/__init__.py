"""The ProLIP model and its configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prolip.lazy import lazy_names
from prolip.models.architectures import ARCHITECTURES
from prolip.models.config import LockConfig, ModelConfig, TextConfig, VisionConfig

if TYPE_CHECKING:
    from prolip.models.freeze import lock_parameters
    from prolip.models.hub import ModelCard, push_to_hub, save_pretrained
    from prolip.models.open_clip import StartError, start_from
    from prolip.models.prolip import ProLIP, ProLIPOutput

__all__ = [
    "ARCHITECTURES",
    "LockConfig",
    "ModelCard",
    "ModelConfig",
    "ProLIP",
    "ProLIPOutput",
    "StartError",
    "TextConfig",
    "VisionConfig",
    "lock_parameters",
    "push_to_hub",
    "save_pretrained",
    "start_from",
]

__getattr__ = lazy_names(__name__, __file__)
