"""How ranks connect and exchange objects."""

import itertools
import random
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import cast

import pytest
import torch
import torch.distributed as dist
from tests.support.forkserver import FORKSERVER
from tests.support.refusals import refusal_of

from prolip.distributed import Ranks, agree_on_name, find_device, join, meet, usable_cores
from prolip.errors import UserError
from prolip.train.stop_signal import StopRequest


def test_restarted_ranks_ignore_the_earlier_ones_in_the_same_store():
    server = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    clients = [dist.TCPStore("localhost", server.port, wait_for_workers=False) for _ in range(4)]
    moments = random.Random(0)

    def begin(rank, after, world_size):
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


def test_a_torchrun_that_has_ended_is_named(monkeypatch):
    server = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    place = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(server.port)}
    for name, value in (place | {"TORCHELASTIC_USE_AGENT_STORE": "True"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("prolip.distributed.ranks._ANSWER_SECONDS", 1)
    with monkeypatch.context() as alone:
        alone.setattr("prolip.distributed.ranks.agree_on_name", lambda *_: "name")
        store = cast(dist.PrefixStore, meet().store)
        assert store.underlying_store.timeout == timedelta(minutes=30), "ranks may start later than the store"
    monkeypatch.setenv("MASTER_PORT", "9")
    with refusal_of("MASTER_ADDR"):
        meet()


def test_no_device_name_falls_back_to_the_cpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    for name, expected in (("auto", "cuda"), ("cuda", "cuda"), ("cuda:1", "cuda:1"), ("cpu", "cpu")):
        assert find_device(name) == torch.device(expected)
    alone = Ranks(rank=2, local_rank=2, world_size=3, device=torch.device("cpu"))
    for choose in (lambda: find_device("cuda:2"), lambda: find_device("gpu"), lambda: join(alone, "cuda", timedelta())):
        with refusal_of("device"):
            choose()
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert find_device("auto") == torch.device("cpu")
    with pytest.raises(UserError):
        find_device("cuda")


def serve(rank, port, answers):
    """A rank of two, which exchanges objects; then rank 1 keeps rank 0 waiting for too long, in every group."""
    store = dist.TCPStore("localhost", port, wait_for_workers=False)
    cpu = torch.device("cpu")
    met = Ranks(rank=rank, local_rank=rank, world_size=2, device=cpu, store=store)
    ranks = join(met, "cpu", timedelta(seconds=3))
    exchanged = [
        ranks.gather((rank, "a")),
        ranks.all_gather(rank),
        ranks.broadcast(f"of {rank}"),
        ranks.scatter([5, 6]),
    ]
    saving, stopping = ranks.with_own_group(), StopRequest(ranks)
    waits = {
        "all": lambda: dist.all_reduce(torch.ones(1)),
        "waiting": lambda: ranks.all_gather(rank),
        "saving": lambda: saving.gather(rank),
        "stopping": lambda: list(itertools.islice(stopping.until_stopped(itertools.count()), 3)),
    }
    with ThreadPoolExecutor(len(waits)) as threads:  # at once, since they take as long as they may
        begun = {name: threads.submit(seconds_to_fail, wait) for name, wait in waits.items() if rank == 0}
    seconds = {name: each.result() for name, each in begun.items()}
    answers.send((exchanged, ranks.waiting and dist.get_backend(ranks.waiting), seconds, ranks.cores))
    answers.recv()


def seconds_to_fail(wait):
    started = time.monotonic()
    with pytest.raises(RuntimeError):
        wait()
    return time.monotonic() - started


def test_ranks_exchange_objects_and_time_out_as_configured():
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
    assert answers[0][0] == [[(0, "a"), (1, "a")], [0, 1], "of 0", 5]
    assert answers[1][0] == [[], [0, 1], "of 0", 6]
    assert [backend for _, backend, _, _ in answers] == ["gloo", "gloo"]
    assert [cores for *_, cores in answers] == [max(1, usable_cores() // 2)] * 2
    assert answers[0][2].keys() == {"all", "waiting", "saving", "stopping"}
    for name, seconds in answers[0][2].items():
        assert 2.9 <= seconds < 20, name
