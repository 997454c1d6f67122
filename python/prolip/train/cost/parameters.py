"""Count a model's parameters by part, on the meta device, so that the model takes no memory."""

from __future__ import annotations

from typing import NamedTuple

import torch

from prolip.models import ModelConfig, ProLIP
from prolip.models.freeze import LOG_VAR_HEADS, UNC_VECTORS, lock_parameters
from prolip.train.config import TrainConfig


def blank(config: ModelConfig) -> ProLIP:
    """A model on the meta device: it has sizes and names, but no memory and no values."""
    with torch.device("meta"):
        return ProLIP(config)


def trained_model(config: TrainConfig) -> ProLIP:
    """The run's model on the meta device, with its locked parameters locked."""
    model = blank(config.model)
    lock_parameters(model, config.lock)
    return model


class Parameters(NamedTuple):
    """Number of parameters by part of the model, and of those that are trained."""

    image_tower: int
    """Patch and position embeddings, [CLS], blocks, norms, the attention pool and the mean's head."""
    text_tower: int
    """The same, without the token table."""
    token_table: int
    """Token embeddings."""
    uncertainty: int
    """[UNC] vectors and log-variance heads of both towers. Their position rows count with the towers."""
    similarity: int
    """Logit scale and bias."""
    trained: int
    """Parameters with gradients."""

    @property
    def total(self) -> int:
        """Number of all parameters."""
        return self.image_tower + self.text_tower + self.token_table + self.uncertainty + self.similarity


def count_parameters(model: ProLIP) -> Parameters:
    """By part of the model."""
    parts = dict.fromkeys(Parameters._fields, 0)
    for name, parameter in model.named_parameters():
        if name.startswith((*UNC_VECTORS, *LOG_VAR_HEADS)):
            part = "uncertainty"
        elif name == "text.token_embedding.weight":
            part = "token_table"
        else:
            part = {"visual": "image_tower", "text": "text_tower"}.get(name.split(".")[0], "similarity")
        parts[part] += parameter.numel()
        parts["trained"] += parameter.numel() if parameter.requires_grad else 0
    return Parameters(**parts)
