"""The ranks of a job: start and stop, and the one exchange that the losses need."""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol
from uuid import uuid4
from weakref import WeakValueDictionary

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from prolip.errors import UserError, sentence

_START_SECONDS = 1800


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process's place in the job."""

    rank: int
    """0 .. world_size - 1; rank 0 writes files and logs."""
    local_rank: int
    """Rank on this machine; also the number of its GPU."""
    world_size: int
    """Processes in the job."""
    local_world_size: int
    """Processes on this machine, which share its cores."""
    device: torch.device
    """Device of this rank."""
    store: Store | None = field(default=None, repr=False, compare=False)
    """Key-value store that the ranks share; None in a single process."""


def start(device: str = "auto") -> Ranks:
    """Read this process's place from the launcher's environment, and join the process group if there are several.

    `device` is "auto" (a GPU if there is one), "cpu" or "cuda". A single process needs no launcher.
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
    """Whether `device`, "auto" (a GPU if there is one), "cpu" or "cuda", means a GPU on this machine.

    Raises:
        UserError: it is another word, or "cuda" and torch sees no GPU.
    """
    if device not in {"auto", "cpu", "cuda"}:
        raise UserError(f'device is {device!r}: it must be "auto", "cpu" or "cuda"')
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError('device is "cuda", but torch sees no GPU')
    return device != "cpu" and torch.cuda.is_available()


def agree_on_name(store: Store, rank: int, world_size: int) -> str:
    """Agree with the ranks that start now on a name that was never used in this store before.

    After a restart, torchrun's workers get the store of the workers before them, find their old addresses there, and
    wait for them forever (pytorch/pytorch#135712). Each node counts restarts for itself, so the count is no name. So
    every rank draws a random name. Rank 0 publishes those that it sees, its own first, until every rank has confirmed
    that its own is among them. The name is that of rank 0.

    Raises:
        RuntimeError: a rank does not start within half an hour.
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
    raise RuntimeError(f"rank {rank} waited {_START_SECONDS} s for all {world_size} ranks to start")


def stop() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def log_error(log: logging.Logger, command: str, error: Exception, ranks: Ranks) -> None:
    """Log what ended this rank, unless another rank has logged the same: often all ranks meet the same error.

    Does not wait for the others, since the launcher ends them as soon as one rank has ended.
    """
    told = sentence(error)
    if ranks.store is None:
        log.critical("%s: %s", command, told)
        return
    try:
        is_first = ranks.store.add(f"error/{told}", 1) == 1
    except RuntimeError:  # the process that keeps the store has ended
        is_first = True
    if is_first:
        log.critical("%s: rank %d: %s", command, ranks.rank, told)


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
        """The ranks of `group`, or else of all processes; a single process if there is no group."""
        alone = not dist.is_initialized()
        self.group = None if alone else (group or dist.group.WORLD)
        self.rank = 0 if alone else dist.get_rank(self.group)
        self.world_size = 1 if alone else dist.get_world_size(self.group)
        self.on_nccl = not alone and "nccl" in dist.get_backend(self.group)
        # An operator in a compiled graph cannot hold a process group. It holds this number (see `with_number`).
        self.number = next(_NUMBERS)
        _BY_NUMBER[self.number] = self

    @classmethod
    def with_number(cls, number: int) -> Peers:
        """Return the object with this `number`. It lives as long as something else holds it."""
        return _BY_NUMBER[number]

    def visit(self, own: Sequence[Tensor], visitor: Visitor, *, gathers: bool, with_grads: bool) -> list[Tensor] | None:
        """Run `visitor` on the tensors of every rank; returns what the other ranks computed as gradients of `own`.

        The gradients are summed over the other ranks. None without `with_grads`, or without other ranks.

        Args:
            own: this rank's tensors; every rank's have the same shapes.
            visitor: `local` runs while the first tensors of another rank are on their way.
            gathers: how the tensors travel; the same on all ranks. True: all in one collective, and all gradients in
                another, with memory for all ranks. False: rank by rank, one rank's arrive while another's are worked
                on, with memory for two ranks.
            with_grads: whether gradients are wanted; the same on all ranks.
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
        """Rank by rank: while one rank's numbers are worked on, the next rank's arrive and the last gradients leave."""
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
        """All ranks at once: one collective for the numbers, and one for the gradients."""
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
    """Numbers on their way. The leaving ones are held here, too, so that they are not freed before they are sent."""

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
    """Split `numbers` into views with the shapes of `like`, in order."""
    parts = torch.split(numbers, [tensor.numel() for tensor in like])
    return [part.view(tensor.shape) for part, tensor in zip(parts, like, strict=True)]
