"""Averaged weights: a second set that follows the trained one slowly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


@dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """An exponential moving average of the weights; evaluation and export can take it instead of them."""

    decay: float = 0.0
    """Share of the average that an update keeps; 0 keeps no average."""
    every: int = 1
    """Steps between two updates."""
    warmup: bool = True
    """Update t = 1, 2, ... keeps no more than t / (t + 9), so that the random start is soon forgotten."""

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"ema.decay is {self.decay}: it must be in [0, 1)")
        if self.every < 1:
            raise ValueError(f"ema.every is {self.every}: it must be at least 1")

    def kept(self, step: int) -> float | None:
        """The share of the average that stays after `step` steps; None where that step makes no update."""
        updates, rest = divmod(step, self.every)
        if rest:
            return None
        return min(self.decay, updates / (updates + 9)) if self.warmup else self.decay


class Ema:
    """The average of a model's parameters, each on its device and sharded as it is, in its type."""

    def __init__(self, model: nn.Module, config: EmaConfig) -> None:
        self.config = config
        self._parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
        self._average = {name: parameter.clone() for name, parameter in self._parameters.items()}

    def update(self, step: int) -> None:
        """Takes the weights as they are after `step` steps in, where the configuration has an update there."""
        kept = self.config.kept(step)
        if kept is not None:
            average, current = (
                [_local(tensor) for tensor in tensors.values()] for tensors in (self._average, self._parameters)
            )
            get_ema_multi_avg_fn(kept)(average, current, step)  # type: ignore[no-untyped-call]

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by the parameter's name: the tensors themselves, not copies."""
        return dict(self._average)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what `state_dict` gave.

        Raises:
            ValueError: it has other names.
        """
        if state.keys() != self._average.keys():
            raise ValueError(f"the average holds other names: {sorted(state.keys() ^ self._average.keys())[:5]}")
        for name, tensor in state.items():
            self._average[name].copy_(tensor)


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
