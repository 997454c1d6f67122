"""The model, its configurations by name, and its checkpoints."""

from prolip.models.architectures import ARCHITECTURES, ModelConfig, TextConfig, VisionConfig
from prolip.models.locking import LockConfig, lock_parameters
from prolip.models.prolip import ProLIP, ProLIPOutput
from prolip.models.weights import new_model

__all__ = [
    "ARCHITECTURES",
    "LockConfig",
    "ModelConfig",
    "ProLIP",
    "ProLIPOutput",
    "TextConfig",
    "VisionConfig",
    "lock_parameters",
    "new_model",
]
