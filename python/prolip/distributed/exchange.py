"""The one exchange that a contrastive loss needs: every rank sees all ranks' tensors, with gradients."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class Peers:
    """The ranks that share a batch."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        """The ranks of `group`, by default all; a single process if `torch.distributed` is not initialised."""
        alone = not dist.is_initialized()
        self.group = None if alone else (group or dist.group.WORLD)
        self.rank = 0 if alone else dist.get_rank(self.group)
        self.world_size = 1 if alone else dist.get_world_size(self.group)

    def gather(self, own: Tensor) -> Tensor:
        """Every rank's tensor, [W, ...]; all have one shape. Gradients go back to their ranks, summed."""
        if self.world_size == 1:
            return own[None]
        everyone: Tensor = _Gather.apply(own[None], self.world_size, self.group)
        return everyone


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, world_size: int, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        everyone = own.new_empty(world_size, *own.shape[1:])
        dist.all_gather_into_tensor(everyone, own.contiguous(), group=group)
        return everyone

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        total = grad.new_empty(1, *grad.shape[1:])
        dist.reduce_scatter_tensor(total, grad.contiguous(), group=ctx.group)
        return total, None, None
