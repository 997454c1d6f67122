"""The model, its configurations by name, and its checkpoints."""

from prolip.models.config import ARCHITECTURES, ModelConfig, TextConfig, VisionConfig
from prolip.models.freeze import LockConfig, lock_parameters
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
