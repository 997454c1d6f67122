"""What a failing rank prints. (That all ranks end is tested in tests/slow/test_failing.py.)"""

import logging

import pytest
import torch
import torch.distributed as dist

from prolip.distributed import Ranks, failing_at_once, log_error


def test_an_error_of_all_ranks_is_logged_once_and_of_one_at_once(caplog):
    server = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    cpu, log = torch.device("cpu"), logging.getLogger("told")
    stores = [dist.TCPStore("localhost", server.port, wait_for_workers=False) for _ in range(2)]
    one, other = (
        Ranks(rank=rank, local_rank=rank, world_size=2, device=cpu, store=store) for rank, store in enumerate(stores)
    )
    for ranks, error in ((other, "no such key"), (one, "no such key"), (one, "no space"), (other, "no shard")):
        log_error(log, "train", ValueError(error), ranks)
    assert caplog.messages == [
        "train: rank 1: no such key",
        "train: rank 0: no space",
        "train: rank 1: no shard",
    ]


def test_an_error_of_a_single_process_is_raised_after_cleanup():
    closed = []
    alone = Ranks(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"))

    def fail():
        with failing_at_once("prolip train", logging.getLogger("told"), alone) as opened:
            opened.callback(closed.append, "log")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert closed == ["log"]
