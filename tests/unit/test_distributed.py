"""How ranks meet."""

from __future__ import annotations

import logging
import random
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist

from prolip.distributed import Peers, Ranks, agree_on_name, log_error


def test_ranks_that_start_again_in_the_same_store_do_not_meet_those_before() -> None:
    server = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    clients = [dist.TCPStore("localhost", server.port, wait_for_workers=False) for _ in range(4)]
    moments = random.Random(0)

    def begin(rank: int, after: float, world_size: int) -> str:
        time.sleep(after)
        return agree_on_name(clients[rank], rank, world_size)

    names = []
    with ThreadPoolExecutor(4) as threads:
        # Every rank is late once: what it finds, or what is found of it, is then of the ranks before.
        for world_size, late in ((4, 0), (4, 0), (4, 3), (3, 1), (4, 2)):
            waits = [0.1 if rank == late else moments.uniform(0, 0.02) for rank in range(world_size)]
            begun = [threads.submit(begin, rank, wait, world_size) for rank, wait in enumerate(waits)]
            found = {each.result(timeout=60) for each in begun}
            assert len(found) == 1
            names += found
    assert len(set(names)) == 5


def test_ranks_say_the_same_once_and_what_one_alone_met_at_once(caplog: pytest.LogCaptureFixture) -> None:
    server = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    cpu, log = torch.device("cpu"), logging.getLogger("told")
    stores = [dist.TCPStore("localhost", server.port, wait_for_workers=False) for _ in range(2)]
    one, other = (
        Ranks(rank=rank, local_rank=rank, world_size=2, local_world_size=2, device=cpu, store=store)
        for rank, store in enumerate(stores)
    )
    for ranks, error in ((other, "no such key"), (one, "no such key"), (one, "no space"), (other, "no shard")):
        log_error(log, "train", ValueError(error), ranks)
    log_error(
        log,
        "train",
        ValueError("no such key"),
        Ranks(rank=0, local_rank=0, world_size=1, local_world_size=1, device=cpu),
    )
    assert caplog.messages == [
        "train: rank 1: no such key",
        "train: rank 0: no space",
        "train: rank 1: no shard",
        "train: no such key",
    ]


@pytest.mark.parametrize(("backend", "on_nccl"), [("gloo", False), ("nccl", True), ("cpu:gloo,cuda:nccl", True)])
def test_peers_know_the_network_of_gpus(monkeypatch: pytest.MonkeyPatch, backend: str, on_nccl: bool) -> None:
    assert not Peers().on_nccl
    group = SimpleNamespace()
    for name, value in (("is_initialized", True), ("get_rank", 0), ("get_world_size", 2), ("get_backend", backend)):
        monkeypatch.setattr(dist, name, lambda *_, value=value: value)
    assert Peers(cast(Any, group)).on_nccl is on_nccl
