"""The one exchange that a contrastive loss needs: every rank sees every other rank's tensors, with gradients."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol
from weakref import WeakValueDictionary

import torch
import torch.distributed as dist
from torch import Tensor


class Visitor(Protocol):
    """One rank's computation with its own tensors and with those of every other rank."""

    def local(self) -> None:
        """Do the work that needs no other rank."""

    def remote(self, tensors: Sequence[Tensor], grads: Sequence[Tensor] | None) -> None:
        """Do the work on another rank's tensors.

        Their gradients go into `grads`, zeros of the same shapes; None if no gradients are wanted.
        """


class Peers:
    """The ranks that share a batch: each sees every other rank's tensors, and sends their gradients to the owner."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        """Use the ranks of `group`, by default all; a single process if `torch.distributed` is not initialised."""
        alone = not dist.is_initialized()
        self.group = None if alone else (group or dist.group.WORLD)
        self.rank = 0 if alone else dist.get_rank(self.group)
        self.world_size = 1 if alone else dist.get_world_size(self.group)
        self.on_nccl = not alone and "nccl" in dist.get_backend(self.group)
        # A compiled graph cannot hold a process group, but this number.
        self.number = next(_NUMBERS)
        _BY_NUMBER[self.number] = self

    @classmethod
    def with_number(cls, number: int) -> Peers:
        """The object with this `number`, if something else still holds it."""
        return _BY_NUMBER[number]

    def visit(self, own: Sequence[Tensor], visitor: Visitor, *, gathers: bool, with_grads: bool) -> list[Tensor] | None:
        """Run `visitor` on the tensors of every rank; returns the gradients of `own`, summed over the other ranks.

        Returns None without `with_grads`, or without other ranks.

        Args:
            own: this rank's tensors; all ranks have the same shapes.
            visitor: its `local` runs while the first tensors of another rank arrive.
            gathers: whether to exchange all tensors, and all gradients, in one collective, with memory for all ranks.
                Otherwise one rank's tensors arrive while another's are processed, with memory for two ranks.
            with_grads: whether gradients are wanted.
        """
        if self.world_size == 1:
            visitor.local()
            return None
        packed = torch.cat([tensor.flatten() for tensor in own])

        def remote(numbers: Tensor, grads: Tensor | None) -> None:
            visitor.remote(_unpack(numbers, own), None if grads is None else _unpack(grads, own))

        walk = self._all_gather if gathers else self._ring
        returned = walk(packed, visitor.local, remote, with_grads)
        return None if returned is None else _unpack(returned, own)

    def _ring(self, own: Tensor, local: _Local, remote: _Remote, with_grads: bool) -> Tensor | None:
        """Exchange rank by rank: during work on one rank's numbers, the next arrive and earlier gradients leave."""
        coming, leaving = self._shift(own, 1), None
        total = torch.zeros_like(own)
        local()
        for step in range(1, self.world_size):
            numbers = coming.wait()
            if step + 1 < self.world_size:
                coming = self._shift(own, step + 1)
            grads = torch.zeros_like(numbers) if with_grads else None
            remote(numbers, grads)
            if leaving is not None:
                total += leaving.wait()
            leaving = None if grads is None else self._shift(grads, -step)
        return None if leaving is None else total.add_(leaving.wait())

    def _shift(self, numbers: Tensor, step: int) -> _Transfer:
        """Send `numbers` to the rank `step` places behind, and receive those of the rank `step` places ahead."""
        source = (self.rank + step) % self.world_size
        target = (self.rank - step) % self.world_size
        arriving = torch.empty_like(numbers)
        operations = [
            dist.P2POp(dist.isend, numbers, group=self.group, group_peer=target),
            dist.P2POp(dist.irecv, arriving, group=self.group, group_peer=source),
        ]
        return _Transfer(dist.batch_isend_irecv(operations), arriving, numbers)

    def _all_gather(self, own: Tensor, local: _Local, remote: _Remote, with_grads: bool) -> Tensor | None:
        """Exchange with all ranks at once: one collective for the numbers, and one for the gradients."""
        everyone = own.new_empty(self.world_size * len(own))
        gathering = dist.all_gather_into_tensor(everyone, own, group=self.group, async_op=True)
        local()
        assert gathering is not None  # async_op
        gathering.wait()
        grads = torch.zeros_like(everyone) if with_grads else None
        for step in range(1, self.world_size):
            first = (self.rank + step) % self.world_size * len(own)
            rows = slice(first, first + len(own))
            remote(everyone[rows], None if grads is None else grads[rows])
        if grads is None:
            return None
        total = torch.empty_like(own)
        dist.reduce_scatter_tensor(total, grads, group=self.group)
        return total


_Local = Callable[[], None]
_Remote = Callable[[Tensor, Tensor | None], None]
_NUMBERS = itertools.count()
_BY_NUMBER: WeakValueDictionary[int, Peers] = WeakValueDictionary()


class _Transfer(NamedTuple):
    """A transfer in progress. It holds the leaving numbers, which must not be freed before they are sent."""

    requests: list[dist.Work]
    arriving: Tensor
    leaving: Tensor

    def wait(self) -> Tensor:
        for request in self.requests:
            request.wait()
        return self.arriving


def _unpack(numbers: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Split `numbers` into views with the shapes of `like`, in order."""
    flat = torch.split(numbers, [tensor.numel() for tensor in like])
    return [one.view_as(tensor) for one, tensor in zip(flat, like, strict=True)]
