"""Ranks, and the one exchange between them: every rank's text embeddings, with gradient.

W is the number of ranks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process's place among all."""

    rank: int
    """0 .. world_size - 1; rank 0 writes files and speaks."""
    local_rank: int
    """The place on this machine, which chooses the GPU."""
    world_size: int
    """Processes in the run."""
    local_world_size: int
    """Processes on this machine, which share its cores."""
    device: torch.device
    """Where this rank computes."""


def start(device: str = "auto") -> Ranks:
    """This process's place, read from the launcher's environment; joins the group when there is more than one process.

    `device` is "auto" (a GPU when there is one), "cpu" or "cuda". A single process needs no launcher and no group.
    """
    rank, local_rank, world_size, local_world_size = (
        int(os.environ.get(name, default))
        for name, default in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_WORLD_SIZE", "1"))
    )
    if device not in {"auto", "cpu", "cuda"}:
        raise ValueError(f'device is {device!r}: take "auto", "cpu" or "cuda"')
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError('device is "cuda", but torch sees no GPU')
    on_gpu = device != "cpu" and torch.cuda.is_available()
    place = torch.device("cuda", local_rank) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(place)
    if world_size > 1:
        dist.init_process_group("nccl" if on_gpu else "gloo", device_id=place if on_gpu else None)
    return Ranks(
        rank=rank, local_rank=local_rank, world_size=world_size, local_world_size=local_world_size, device=place
    )


def stop() -> None:
    """Leave the group, if one was joined."""
    if dist.is_initialized():
        dist.destroy_process_group()


class Ring:
    """The exchange of a contrastive loss: each rank sees every rank's rows, and gradients go back to their owner."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        """A ring over `group`, or over all processes; one process alone when no group was ever joined."""
        self.group = group
        self.rank = dist.get_rank(group) if dist.is_initialized() else 0
        self.world_size = dist.get_world_size(group) if dist.is_initialized() else 1

    @classmethod
    def from_env(cls) -> Ring:
        """The ring over all processes of this run, after `start`."""
        return cls()

    def walk(self, own: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Every rank's tensor of `own`'s shape, which must be the same on all ranks: (owner, tensor), own rank first.

        Summed over ranks, the gradients that flow back are those of one process that holds all rows.
        """
        yield self.rank, own
        for step in range(1, self.world_size):
            owner = (self.rank + step) % self.world_size
            remote: Tensor = _Shift.apply(own, step, self)
            yield owner, remote

    def shift(self, tensor: Tensor, step: int) -> Tensor:
        """The tensor of the rank `step` places ahead, while this rank's goes as many places back; no gradient."""
        source = (self.rank + step) % self.world_size
        target = (self.rank - step) % self.world_size
        received = torch.empty_like(tensor, memory_format=torch.contiguous_format)
        operations = [
            dist.P2POp(dist.isend, tensor.contiguous(), group=self.group, group_peer=target),
            dist.P2POp(dist.irecv, received, group=self.group, group_peer=source),
        ]
        for request in dist.batch_isend_irecv(operations):
            request.wait()
        return received


class _Shift(torch.autograd.Function):
    """`Ring.shift`, whose gradient travels the same way back."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, step: int, ring: Ring) -> Tensor:
        ctx.step, ctx.ring = step, ring
        return ring.shift(own, step)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.ring.shift(gradient, -ctx.step), None, None
