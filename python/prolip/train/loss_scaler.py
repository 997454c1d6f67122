"""The factor on the loss that keeps fp16's small gradients from vanishing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

_START = 2.0**16
_PATIENCE = 2000


class LossScaler:
    """The factor on the loss that keeps fp16's small gradients from vanishing.

    The rule is that of `torch.amp.GradScaler`: halved after a step whose gradient is not finite, which is skipped, and
    doubled after 2000 finite ones in a row. It is told by the norm of the gradient, which is the same on all ranks
    however they are sharded.
    """

    def __init__(self, scale: float = _START, *, patience: int = _PATIENCE) -> None:
        self.scale = scale
        self._patience = patience
        self._good_steps = 0

    @torch.no_grad()
    def unscale(self, parameters: Iterable[nn.Parameter]) -> None:
        """Takes the factor out of the gradients."""
        for parameter in parameters:
            if parameter.grad is not None:
                gradient = parameter.grad
                (gradient.to_local() if isinstance(gradient, DTensor) else gradient).mul_(1.0 / self.scale)

    def update(self, norm: Tensor) -> bool:
        """Whether the gradient of this norm may be taken a step along, and what follows for the factor.

        Raises:
            RuntimeError: it was not, and the factor is 1 already: the run diverged.
        """
        if not math.isfinite(norm.item()):
            if self.scale <= 1:
                raise RuntimeError("the gradient is not finite, and fp16's loss is scaled by no more than 1")
            self.scale, self._good_steps = self.scale / 2, 0
            return False
        self._good_steps += 1
        if self._good_steps == self._patience:
            self.scale, self._good_steps = self.scale * 2, 0
        return True

    def state_dict(self) -> dict[str, float]:
        """The factor, and how many steps in a row were finite."""
        return {"scale": self.scale, "good_steps": float(self._good_steps)}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Takes over what `state_dict` gave."""
        self.scale, self._good_steps = float(state["scale"]), int(state["good_steps"])
