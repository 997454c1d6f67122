"""Loss scaling for fp16, which keeps small gradients from underflowing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


class LossScaler:
    """The scale of an fp16 loss, adapted to the gradients as in `torch.amp.GradScaler`.

    A step with a gradient that is not finite is skipped and halves the scale; 2000 finite steps in a row double it.
    Scale and count stay on the device, so that a step need not wait for them.
    """

    def __init__(self, device: torch.device, scale: float = 2.0**16, *, patience: int = 2000) -> None:
        self.scale = torch.full((), scale, device=device)
        self._patience = patience
        self._good_steps = torch.zeros((), dtype=torch.int64, device=device)

    @torch.no_grad()
    def unscale(self, parameters: Iterable[nn.Parameter]) -> None:
        """Divide the gradients by the scale, in place."""
        factor = 1.0 / self.scale
        for parameter in parameters:
            if parameter.grad is not None:
                gradient = parameter.grad
                (gradient.to_local() if isinstance(gradient, DTensor) else gradient).mul_(factor)

    def update(self, finite: Tensor) -> Tensor:
        """Adapt the scale; returns whether a smaller one may help. All scalars on the device.

        Args:
            finite: whether the gradient norm is finite. It is the same on all ranks, sharded or not.
        """
        overflowed = ~finite & (self.scale > 1)
        good_steps = torch.where(finite, self._good_steps + 1, 0)
        doubled = good_steps == self._patience
        self.scale = torch.where(overflowed, self.scale / 2, torch.where(doubled, self.scale * 2, self.scale))
        self._good_steps = torch.where(doubled, 0, good_steps)
        return overflowed

    def state_dict(self) -> dict[str, float]:
        """Return the scale and the number of finite steps in a row."""
        return {"scale": self.scale.item(), "good_steps": float(self._good_steps.item())}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Restore what `state_dict` returned."""
        self.scale.fill_(state["scale"])
        self._good_steps.fill_(int(state["good_steps"]))
