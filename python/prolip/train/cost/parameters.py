"""Numbers of parameters, of a model that needs no memory."""

from __future__ import annotations

from typing import NamedTuple

import torch

from prolip.models import ModelConfig, ProLIP
from prolip.models.freeze import LOG_VAR_HEADS, UNC_VECTORS


def blank(config: ModelConfig) -> ProLIP:
    """A model of that architecture on the meta device: sizes and names, no memory, no numbers."""
    with torch.device("meta"):
        return ProLIP(config)


class Parameters(NamedTuple):
    """Numbers of parameters by part of the model; `trained` are those among all of them that need gradients."""

    image_tower: int
    """Patches, positions, [CLS], blocks, norms and the mean's head, the attention pool included."""
    text_tower: int
    """As in the image tower, without the token table."""
    token_table: int
    """Rows of the vocabulary."""
    uncertainty: int
    """[UNC] vectors and log-variance heads of both towers (their position rows belong to the towers)."""
    similarity: int
    """Scale and bias."""
    trained: int
    """Those that a step changes."""

    @property
    def total(self) -> int:
        """All parameters."""
        return self.image_tower + self.text_tower + self.token_table + self.uncertainty + self.similarity


def count_parameters(model: ProLIP) -> Parameters:
    """The parameters of a model, `blank` or not, by part."""
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
