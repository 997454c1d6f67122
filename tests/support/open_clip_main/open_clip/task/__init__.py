"""A training task with what open_clip's main branch asks of one: it has model and loss, and takes a batch by names."""

from __future__ import annotations

import math
from typing import Any

import open_clip
import torch
from torch import Tensor, nn


class CLIPTask(nn.Module):
    """A model and its contrastive loss. In training it returns losses and a report, else what the model returns."""

    data_keys = ("image", "text")
    primary_key = "image"
    naflex_data_config = None

    def __init__(self, model: nn.Module, *, loss: nn.Module | None = None) -> None:
        super().__init__()
        self.trainable_module = model
        self.loss = loss or open_clip.ClipLoss()

    def prepare_batch(
        self, batch: dict[str, Tensor], device: torch.device, input_dtype: Any = None
    ) -> dict[str, Tensor]:
        """Floats get the dtype of the run, integers stay."""
        return {
            name: value.to(device, dtype=input_dtype if value.is_floating_point() else None)
            for name, value in batch.items()
        }

    def batch_size(self, batch: dict[str, Tensor]) -> int:
        return len(batch[self.primary_key])

    def clamp_logit_scale(self) -> None:
        with torch.no_grad():
            self.trainable_module.logit_scale.clamp_(0, math.log(100))

    def compute_accum_loss(
        self, features: Any, scalars: Any, batches: Any
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        del batches
        return self.loss(**features, **scalars, output_dict=True), {"logit_scale": scalars["logit_scale"]}

    def forward(self, batch: dict[str, Tensor]) -> Any:
        found = self.trainable_module(**batch)  # by name: a batch with another name in it is an error
        if not self.training:
            return found
        losses = self.loss(**found, output_dict=True)
        return losses | {"loss": sum(losses.values())}, {"logit_scale": found["logit_scale"]}
