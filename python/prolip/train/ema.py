"""Averaged weights: an exponential moving average (EMA) of the trained weights."""

from __future__ import annotations

from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from prolip.train.config.parts import EmaConfig


class Ema:
    """The average of a model's parameters, with the device, type and sharding of each."""

    def __init__(self, model: nn.Module, config: EmaConfig) -> None:
        self.config = config
        self._parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
        self._average = {name: parameter.clone() for name, parameter in self._parameters.items()}

    def update(self, step: int) -> None:
        """Update the average with the weights after `step` steps, if an update is due."""
        kept = self.config.kept(step)
        if kept is not None:
            average, current = (
                [_local(tensor) for tensor in tensors.values()] for tensors in (self._average, self._parameters)
            )
            get_ema_multi_avg_fn(kept)(average, current, step)  # type: ignore[no-untyped-call]

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages by parameter name: the tensors themselves, so writing into them changes the average."""
        return dict(self._average)


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
