"""Ranks, and the one exchange between them: every rank meets every other rank's numbers and answers them."""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol
from uuid import uuid4
from weakref import WeakValueDictionary

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from prolip.errors import UserError

Exchange = Literal["ring", "all_gather"]
"""`ring`: rank after rank, one's numbers coming while another's are worked on; memory for two ranks' numbers at a time.
`all_gather`: one collective for all numbers and one for all answers; memory for every rank's."""

_START_SECONDS = 1800


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
    store: Store | None = field(default=None, repr=False, compare=False)
    """Where the ranks leave each other notes; None where there is but one."""


def start(device: str = "auto") -> Ranks:
    """This process's place, read from the launcher's environment; joins the group when there is more than one process.

    `device` is "auto" (a GPU when there is one), "cpu" or "cuda". A single process needs no launcher and no group.
    """
    rank, local_rank, world_size, local_world_size = (
        int(os.environ.get(name, default))
        for name, default in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_WORLD_SIZE", "1"))
    )
    on_gpu = wants_gpu(device)
    place = torch.device("cuda", local_rank) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(place)
    own: Store | None = None
    if world_size > 1:
        store, _, _ = next(rendezvous("env://"))
        own = PrefixStore(agree_on_name(store, rank, world_size), store)
        backend, device_id = ("nccl", place) if on_gpu else ("gloo", None)
        dist.init_process_group(backend, store=own, rank=rank, world_size=world_size, device_id=device_id)
    return Ranks(
        rank=rank,
        local_rank=local_rank,
        world_size=world_size,
        local_world_size=local_world_size,
        device=place,
        store=own,
    )


def wants_gpu(device: str) -> bool:
    """Whether "auto" (a GPU when there is one), "cpu" or "cuda" means a GPU here.

    Raises:
        UserError: it is another word, or "cuda" and torch sees no GPU.
    """
    if device not in {"auto", "cpu", "cuda"}:
        raise UserError(f'device is {device!r}: it must be "auto", "cpu" or "cuda"')
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError('device is "cuda", but torch sees no GPU')
    return device != "cpu" and torch.cuda.is_available()


def agree_on_name(store: Store, rank: int, world_size: int) -> str:
    """A name that the ranks which start now have in common, and none that ever met in this store had before.

    After a restart torchrun gives its workers the store of those before them, in which they find each other's old
    addresses and wait for them (pytorch/pytorch#135712); and each node counts restarts for itself. So every rank draws
    a name. Rank 0 tells those that it sees, its own first, until each rank has found its own among them.

    Raises:
        RuntimeError: a rank does not come within half an hour.
    """
    own, deadline = uuid4().hex, time.monotonic() + _START_SECONDS
    store.set(f"name/{rank}", own)
    while time.monotonic() < deadline:
        if rank == 0:
            names = [store.get(f"name/{other}").decode() for other in range(world_size)]
            store.set("names", " ".join(names))
            if store.check([f"found/{own}/{name}" for name in names[1:]]):
                return own
        elif own in (names := store.get("names").decode().split()):
            store.set(f"found/{names[0]}/{own}", "")
            return names[0]
        time.sleep(0.01)
    raise RuntimeError(f"rank {rank} waited {_START_SECONDS} s in vain for all {world_size} to start")


def stop() -> None:
    """Leave the group, if one was joined."""
    if dist.is_initialized():
        dist.destroy_process_group()


def complain(log: logging.Logger, command: str, error: Exception, ranks: Ranks) -> None:
    """Says what ended this rank, unless another rank said the same before: all may have met it, or this one alone.

    Nobody waits for the others, since the launcher ends them as soon as one rank has ended.
    """
    if ranks.store is None:
        log.critical("%s: %s", command, error)
        return
    try:
        is_first = ranks.store.add(f"complaint/{error}", 1) == 1
    except RuntimeError:  # who keeps the store is gone
        is_first = True
    if is_first:
        log.critical("%s: rank %d: %s", command, ranks.rank, error)


class Visitor(Protocol):
    """What one rank computes with its own tensors and with those of every other rank."""

    def local(self) -> None:
        """The work that needs no other rank."""

    def remote(self, tensors: Sequence[Tensor], grads: Sequence[Tensor] | None) -> None:
        """The work on another rank's tensors.

        Their gradients go into `grads`, which are zeros of the same shapes; None where no gradients are wanted.
        """


class Peers:
    """The ranks that share a batch, and the one exchange that a contrastive loss needs.

    Each rank sees every other rank's tensors and sends their gradients back to the owner.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        """The ranks of `group`, or of all processes; one process alone when no group was ever joined."""
        alone = not dist.is_initialized()
        self.group = None if alone else (group or dist.group.WORLD)
        self.rank = 0 if alone else dist.get_rank(self.group)
        self.world_size = 1 if alone else dist.get_world_size(self.group)
        # What `with_number` finds this object by: a compiled graph holds no process group, but may hold a number.
        self.number = next(_NUMBERS)
        _BY_NUMBER[self.number] = self

    @classmethod
    def with_number(cls, number: int) -> Peers:
        """The object whose `number` this is, for as long as someone holds it."""
        return _BY_NUMBER[number]

    def visit(
        self, own: Sequence[Tensor], visitor: Visitor, exchange: Exchange, *, with_grads: bool
    ) -> list[Tensor] | None:
        """Shows `visitor` the tensors of every rank; returns the gradients that the other ranks found for `own`.

        The gradients are summed over the other ranks. None without `with_grads`, or where there is no other rank.

        Args:
            own: this rank's tensors; every rank's have the same shapes.
            visitor: `local` runs while the first tensors of another rank are on their way.
            exchange: how the tensors travel; the same on all ranks.
            with_grads: whether gradients are wanted; the same on all ranks.
        """
        if self.world_size == 1:
            visitor.local()
            return None
        packed = torch.cat([tensor.flatten() for tensor in own])

        def remote(numbers: Tensor, grads: Tensor | None) -> None:
            visitor.remote(_unpack(numbers, own), None if grads is None else _unpack(grads, own))

        walk = self._ring if exchange == "ring" else self._all_gather
        returned = walk(packed, visitor.local, remote, with_grads)
        return None if returned is None else _unpack(returned, own)

    def _ring(self, own: Tensor, local: _Local, remote: _Remote, with_grads: bool) -> Tensor | None:
        """While one rank's numbers are worked on, the next rank's arrive and the last rank's gradients leave."""
        coming: _Transfer | None = self._shift(own, 1)
        leaving: _Transfer | None = None
        total: Tensor | None = None
        local()
        for step in range(1, self.world_size):
            assert coming is not None
            numbers = coming.wait()
            coming = self._shift(own, step + 1) if step + 1 < self.world_size else None
            grads = torch.zeros_like(numbers) if with_grads else None
            remote(numbers, grads)
            if grads is None:
                continue
            if leaving is not None:
                total = _added(total, leaving.wait())
            leaving = self._shift(grads, -step)
        return total if leaving is None else _added(total, leaving.wait())

    def _shift(self, numbers: Tensor, step: int) -> _Transfer:
        """Sends `numbers` to the rank `step` places behind, and receives those of the rank as many places ahead."""
        source = (self.rank + step) % self.world_size
        target = (self.rank - step) % self.world_size
        arriving = torch.empty_like(numbers)
        operations = [
            dist.P2POp(dist.isend, numbers, group=self.group, group_peer=target),
            dist.P2POp(dist.irecv, arriving, group=self.group, group_peer=source),
        ]
        return _Transfer(dist.batch_isend_irecv(operations), arriving, numbers)

    def _all_gather(self, own: Tensor, local: _Local, remote: _Remote, with_grads: bool) -> Tensor | None:
        """All ranks' numbers arrive in one collective, and all gradients leave in another."""
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
    """Numbers under way. What leaves is held as well: it must not be freed before it has left."""

    requests: list[dist.Work]
    arriving: Tensor
    leaving: Tensor

    def wait(self) -> Tensor:
        for request in self.requests:
            request.wait()
        return self.arriving


def _added(total: Tensor | None, more: Tensor) -> Tensor:
    return more if total is None else total.add_(more)


def _unpack(numbers: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Views of `numbers` that have, one after the other, the shapes of `like`."""
    parts = torch.split(numbers, [tensor.numel() for tensor in like])
    return [part.view(tensor.shape) for part, tensor in zip(parts, like, strict=True)]
