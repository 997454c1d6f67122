"""Loss scaling for fp16, which keeps small gradients from underflowing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

_START = 2.0**16
_PATIENCE = 2000


class LossScaler:
    """The scale of an fp16 loss, adapted to the gradients as in `torch.amp.GradScaler`.

    A step with a gradient that is not finite is skipped and halves the scale; 2000 finite steps in a row double it.
    The gradient norm decides, since it is the same on all ranks, sharded or not.
    """

    def __init__(self, scale: float = _START, *, patience: int = _PATIENCE) -> None:
        self.scale = scale
        self._patience = patience
        self._good_steps = 0

    @torch.no_grad()
    def unscale(self, parameters: Iterable[nn.Parameter]) -> None:
        """Divide the gradients by the scale, in place."""
        for parameter in parameters:
            if parameter.grad is not None:
                gradient = parameter.grad
                (gradient.to_local() if isinstance(gradient, DTensor) else gradient).mul_(1.0 / self.scale)

    def update(self, norm: Tensor) -> bool:
        """Adapt the scale to a gradient norm; returns whether the optimizer may step.

        Raises:
            RuntimeError: the norm is not finite although the scale is 1 already: the run diverged.
        """
        if not math.isfinite(norm.item()):
            if self.scale <= 1:
                raise RuntimeError("the gradient is not finite although the fp16 loss scale is down to 1")
            self.scale, self._good_steps = self.scale / 2, 0
            return False
        self._good_steps += 1
        if self._good_steps == self._patience:
            self.scale, self._good_steps = self.scale * 2, 0
        return True

    def state_dict(self) -> dict[str, float]:
        """Return the scale and the number of finite steps in a row."""
        return {"scale": self.scale, "good_steps": float(self._good_steps)}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Restore what `state_dict` returned."""
        self.scale, self._good_steps = float(state["scale"]), int(state["good_steps"])
