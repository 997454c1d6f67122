"""How ranks meet."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from multiprocessing.connection import Connection

import torch
import torch.distributed as dist
from tests.support.ranks import FORKSERVER

from prolip.distributed import Ranks, agree_on_name, join


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


def serve(rank: int, port: int, answers: Connection) -> None:
    """A rank of two, which exchanges objects; then rank 1 keeps rank 0 waiting for too long."""
    store = dist.TCPStore("localhost", port, wait_for_workers=False)
    cpu = torch.device("cpu")
    met = Ranks(rank=rank, local_rank=rank, world_size=2, local_world_size=2, device=cpu, store=store)
    ranks = join(met, "cpu", timedelta(seconds=3))
    exchanged = [ranks.gather((rank, "a")), ranks.all_gather(rank), ranks.broadcast(f"of {rank}")]
    waits: list[Callable[[], object]] = [lambda: ranks.all_gather(rank), lambda: dist.all_reduce(torch.ones(1))]
    failures, started = [], time.monotonic()
    for wait in waits if rank == 0 else []:
        try:
            wait()
        except RuntimeError as error:
            failures.append(type(error).__name__)
    answers.send((exchanged, dist.get_backend(ranks.waiting), failures, time.monotonic() - started))
    answers.recv()


def test_ranks_exchange_objects_and_do_not_wait_longer_than_they_are_told() -> None:
    server = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    pipes = [FORKSERVER.Pipe() for _ in range(2)]
    for rank, (_, there) in enumerate(pipes):
        FORKSERVER.Process(target=serve, args=(rank, server.port, there), daemon=True).start()
    answers = []
    for here, _ in pipes:
        assert here.poll(60), "a rank hangs"
        answers.append(here.recv())
    for here, _ in pipes:
        here.send(None)  # so that rank 1 stays connected until then
    assert answers[0][0] == [[(0, "a"), (1, "a")], [0, 1], "of 0"]
    assert answers[1][0] == [[], [0, 1], "of 0"]
    assert [backend for _, backend, _, _ in answers] == ["gloo", "gloo"]
    assert answers[0][2] == ["RuntimeError", "RuntimeError"]
    assert 3 <= answers[0][3] < 20
