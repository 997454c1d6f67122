"""The ranks of a job: how they meet, and wait for each other."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypeVar
from uuid import uuid4

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from prolip._core import usable_cores
from prolip.errors import UserError, check

_START_SECONDS = 1800
_ANSWER_SECONDS = 120
"""For torchrun's store, which serves before the ranks start."""
_TIMEOUT = timedelta(minutes=30)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process's place in the job."""

    rank: int
    """0 .. world_size - 1; rank 0 writes files and logs."""
    local_rank: int
    """On this machine; also the number of its GPU."""
    world_size: int
    device: torch.device
    store: Store | None = field(default=None, repr=False, compare=False)
    """Key-value store that the ranks share; None in a single process."""
    timeout: timedelta = _TIMEOUT
    """For another rank, before failing."""
    cores: int = field(default_factory=usable_cores)
    """Of the machine's, this process's share, at least 1."""
    waiting: dist.ProcessGroup | None = field(default=None, repr=False, compare=False)
    """A gloo group of all ranks, for Python objects and for waiting while one rank works (NCCL would keep the GPU
    busy). None in a single process."""

    def with_own_group(self) -> Ranks:
        """A new `waiting` group, for concurrent exchanges. All ranks call this."""
        if self.world_size == 1:
            return self
        group = dist.new_group(backend="gloo", timeout=self.timeout)
        assert isinstance(group, dist.ProcessGroup)  # the other type is for ranks outside the group
        return replace(self, waiting=group)

    def gather(self, item: T) -> list[T]:
        """All ranks' items in order on rank 0, and [] on others. All ranks call this."""
        if self.world_size == 1:
            return [item]
        items = [item] * self.world_size if self.rank == 0 else None
        dist.gather_object(item, items, dst=0, group=self.waiting)
        return items or []

    def all_gather(self, item: T) -> list[T]:
        """All ranks' items in order. All ranks call this."""
        items = [item] * self.world_size
        if self.world_size > 1:
            dist.all_gather_object(items, item, group=self.waiting)
        return items

    def scatter(self, items: list[T]) -> T:
        """This rank's item of rank 0's list. All ranks call this; the others' lists do not count."""
        if self.world_size == 1:
            return items[0]
        received: list[Any] = [None]
        dist.scatter_object_list(received, items if self.rank == 0 else None, src=0, group=self.waiting)
        item: T = received[0]
        return item

    def broadcast(self, item: T) -> T:
        """Rank 0's item. All ranks call this."""
        items = [item]
        if self.world_size > 1:
            dist.broadcast_object_list(items, src=0, group=self.waiting)
        return items[0]


def find_device(device: str | torch.device) -> torch.device:
    """By name: "auto" (a GPU if torch sees one), or a torch device, such as "cpu" or "cuda:1".

    Raises:
        UserError: there is no such device, or torch cannot use it.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise UserError("device", "must be auto or a device of torch, such as cpu or cuda:1", device) from error
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    check(
        chosen.type != "cuda" or (chosen.index or 0) < seen,
        "device",
        f"must be one of the {seen} GPUs that torch sees",
        device,
    )
    return chosen


def start(device: str = "auto", timeout: timedelta = _TIMEOUT) -> Ranks:
    """Meet the other ranks and join their process group."""
    return join(meet(), device, timeout)


def meet() -> Ranks:
    """Read this process's place from the launcher's environment, and meet the other ranks in their store.

    There is no process group yet, and the device is the CPU.

    Raises:
        UserError: the store does not answer, such as that of a torchrun that was killed.
    """
    rank, local_rank, world_size = (
        int(os.environ.get(name, default))
        for name, default in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1"))
    )
    own: Store | None = None
    if world_size > 1:
        by_torchrun = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        seconds = _ANSWER_SECONDS if by_torchrun else _START_SECONDS
        try:
            store, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=seconds)))
        except dist.DistError as error:
            reason = str(error).partition("\n")[0]
            raise UserError("MASTER_ADDR", f"must be where torchrun, or rank 0, still runs ({reason})") from error
        store.set_timeout(timedelta(seconds=_START_SECONDS))
        own = PrefixStore(agree_on_name(store, rank, world_size), store)
    return Ranks(
        rank=rank,
        local_rank=local_rank,
        world_size=world_size,
        device=torch.device("cpu"),
        store=own,
    )


def join(ranks: Ranks, device: str, timeout: timedelta) -> Ranks:
    """Choose the device ("auto", "cpu" or "cuda"), and join the process group of several ranks.

    Returns `ranks` with both.
    """
    own_device = find_device(device)
    on_gpu = own_device.type == "cuda"
    if on_gpu:
        own_device = find_device(f"cuda:{ranks.local_rank}")
        torch.cuda.set_device(own_device)
    if ranks.world_size == 1:
        return replace(ranks, device=own_device)
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=ranks.store,
        rank=ranks.rank,
        world_size=ranks.world_size,
        timeout=timeout,
        device_id=own_device if on_gpu else None,
    )
    ranks = replace(ranks, device=own_device, timeout=timeout).with_own_group()
    machine = socket.gethostname()
    # macOS and Windows do not tell a process's cores.
    bound = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(usable_cores()))
    of_all = ranks.all_gather((machine, bound))
    return replace(ranks, cores=_share_of_cores(bound, [cores for name, cores in of_all if name == machine]))


def stop() -> None:
    """Leave the process group, if any. With NCCL it waits for all ranks, so call it only after a success."""
    if dist.is_initialized():
        dist.destroy_process_group()


def agree_on_name(store: Store, rank: int, world_size: int) -> str:
    """Agree with the ranks that start now on a name that was never used in this store before.

    After a restart, torchrun's workers find the addresses of the previous workers in their store, and wait for them
    forever (pytorch/pytorch#135712). So every rank draws a random name. Rank 0 publishes all names, its own first,
    until every rank has confirmed that its name is among them. All agree on rank 0's.

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


def _share_of_cores(bound: set[int], of_all: Sequence[set[int]]) -> int:
    """This process's share of each core, summed, within the cgroup's quota, at least 1.

    Args:
        bound: the cores that this process is bound to: its own, or those of its GPU's socket.
        of_all: the same of all processes on this machine.
    """
    share = sum(1 / sum(core in cores for cores in of_all) for core in bound)
    quota = usable_cores()
    if quota < len(bound):  # the processes of a machine share a quota
        share = min(share, quota / len(of_all))
    return max(1, int(share + 1e-6))
