"""Ranks as threads of one process, for tests that exchange little: no processes to start."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")


class Group:
    """Takes the place of `torch.distributed` in a module: the exchanges that such modules make."""

    def __init__(self, size):
        self._size = size
        self._barrier = threading.Barrier(size, timeout=60)
        self._given = {}
        self._rank = threading.local()

    def run(self, of_rank):
        """What each rank's work gave."""

        def work(rank):
            self._rank.number = rank
            return of_rank(rank)

        with ThreadPoolExecutor(self._size) as threads:
            return list(threads.map(work, range(self._size)))

    def _all(self, mine):
        self._given[self._rank.number] = mine
        self._barrier.wait()
        every = [self._given[rank] for rank in range(self._size)]
        self._barrier.wait()
        return every

    def all_reduce(self, tensor):
        tensor.copy_(torch.stack(self._all(tensor.clone())).sum(0))

    def all_gather_into_tensor(self, every, mine):
        every.copy_(torch.cat(self._all(mine.clone())))

    def all_gather_object(self, every, mine, group):
        every[:] = self._all(mine)

    def gather_object(self, mine, every, dst, group):
        given = self._all(mine)
        assert (every is not None) == (self._rank.number == dst)
        if every is not None:
            every[:] = given

    def broadcast_object_list(self, items, src, group):
        items[:] = self._all(list(items))[src]
