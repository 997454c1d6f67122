"""The model, its configurations by name, and its checkpoints."""

from prolip.models.architectures import ARCHITECTURES, ModelConfig, TextConfig, VisionConfig
from prolip.models.prolip import ProLIP, ProLIPOutput
from prolip.models.weights import new_model

__all__ = ["ARCHITECTURES", "ModelConfig", "ProLIP", "ProLIPOutput", "TextConfig", "VisionConfig", "new_model"]
