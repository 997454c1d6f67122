"""Ranks, and the one exchange between them: every rank meets every other rank's numbers and answers them."""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol
from uuid import uuid4
from weakref import WeakValueDictionary

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

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
        ValueError: it is another word, or "cuda" where torch sees no GPU.
    """
    if device not in {"auto", "cpu", "cuda"}:
        raise ValueError(f'device is {device!r}: take "auto", "cpu" or "cuda"')
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError('device is "cuda", but torch sees no GPU')
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
    """What one rank does with the numbers of all."""

    def alone(self) -> None:
        """The work that needs no other rank."""

    def meet(self, owner: int, numbers: Tensor) -> Tensor | None:
        """Works on another rank's numbers; what it returns, as many numbers, is added to what `owner` gets back."""


class Peers:
    """The ranks that share a batch, and the one exchange that a contrastive loss needs of them.

    Each rank sees every other rank's rows and may send the owner something back, which is how gradients come home.
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
    def from_env(cls) -> Peers:
        """All processes of this run, after `start`."""
        return cls()

    @classmethod
    def with_number(cls, number: int) -> Peers:
        """The object whose `number` this is, for as long as someone holds it."""
        return _BY_NUMBER[number]

    def visit(self, own: Tensor, lengths: Sequence[int], exchange: Exchange, visitor: Visitor) -> Tensor | None:
        """What the other ranks, of which there is at least one, gave back for `own` in all; None where nothing is.

        Args:
            own: this rank's numbers, on one axis.
            lengths: how many numbers each rank has.
            exchange: the way they travel; all ranks name the same.
            visitor: what is done with them; it is told `alone` while the first numbers are still on their way.
        """
        assert own.ndim == 1
        assert lengths[self.rank] == len(own)
        assert self.world_size > 1
        return (self._visit_in_turn if exchange == "ring" else self._visit_gathered)(own, lengths, visitor)

    def _visit_in_turn(self, own: Tensor, lengths: Sequence[int], visitor: Visitor) -> Tensor | None:
        """While one rank's numbers are worked on, the next one's come and the answer to the last one leaves."""
        coming: _Flight | None = self._shift(own, 1, lengths)
        leaving: _Flight | None = None
        total: Tensor | None = None
        visitor.alone()
        for step in range(1, self.world_size):
            assert coming is not None
            numbers = coming.land()
            coming = self._shift(own, step + 1, lengths) if step + 1 < self.world_size else None
            answer = visitor.meet((self.rank + step) % self.world_size, numbers)
            if answer is None:
                continue
            if leaving is not None:
                total = _added(total, leaving.land())
            leaving = self._shift(answer, -step, [len(own)] * self.world_size)
        return total if leaving is None else _added(total, leaving.land())

    def _shift(self, numbers: Tensor, step: int, lengths: Sequence[int]) -> _Flight:
        """The numbers of the rank `step` places ahead set out to here, and `numbers` as many places back."""
        source = (self.rank + step) % self.world_size
        target = (self.rank - step) % self.world_size
        arriving = numbers.new_empty(lengths[source])
        operations = [
            dist.P2POp(dist.isend, numbers, group=self.group, group_peer=target),
            dist.P2POp(dist.irecv, arriving, group=self.group, group_peer=source),
        ]
        return _Flight(dist.batch_isend_irecv(operations), arriving, numbers)

    def _visit_gathered(self, own: Tensor, lengths: Sequence[int], visitor: Visitor) -> Tensor | None:
        """All ranks' numbers at once, and all answers at once; every rank's row is as long as the longest."""
        width = max(lengths)
        everyone = own.new_empty(self.world_size * width)
        padded = own if len(own) == width else torch.cat([own, own.new_zeros(width - len(own))])
        gathering = dist.all_gather_into_tensor(everyone, padded, group=self.group, async_op=True)
        visitor.alone()
        assert gathering is not None  # async_op
        gathering.wait()
        answers: Tensor | None = None
        for step in range(1, self.world_size):
            owner = (self.rank + step) % self.world_size
            start = owner * width
            answer = visitor.meet(owner, everyone[start : start + lengths[owner]])
            if answer is not None:
                answers = torch.zeros_like(everyone) if answers is None else answers
                answers[start : start + lengths[owner]] = answer
        if answers is None:
            return None
        total = torch.empty_like(padded)
        dist.reduce_scatter_tensor(total, answers, group=self.group)
        return total[: len(own)]


_NUMBERS = itertools.count()
_BY_NUMBER: WeakValueDictionary[int, Peers] = WeakValueDictionary()


class _Flight(NamedTuple):
    """Numbers under way. What leaves is held as well, for it must not be freed before it has left."""

    requests: list[dist.Work]
    arriving: Tensor
    leaving: Tensor

    def land(self) -> Tensor:
        for request in self.requests:
            request.wait()
        return self.arriving


def _added(total: Tensor | None, more: Tensor) -> Tensor:
    return more if total is None else total.add_(more)
