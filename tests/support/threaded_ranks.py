"""Ranks as threads of one process, for tests that exchange little: no processes to start."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

T = TypeVar("T")


class Group:
    """Takes the place of `torch.distributed` in a module: the exchanges that such modules make."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._barrier = threading.Barrier(size, timeout=60)
        self._given: dict[int, Any] = {}
        self._rank = threading.local()

    def run(self, of_rank: Callable[[int], T]) -> list[T]:
        """What each rank's work gave."""

        def work(rank: int) -> T:
            self._rank.number = rank
            return of_rank(rank)

        with ThreadPoolExecutor(self._size) as threads:
            return list(threads.map(work, range(self._size)))

    def _all(self, mine: Any) -> list[Any]:
        self._given[self._rank.number] = mine
        self._barrier.wait()
        every = [self._given[rank] for rank in range(self._size)]
        self._barrier.wait()
        return every

    def all_reduce(self, tensor: torch.Tensor) -> None:
        tensor.copy_(torch.stack(self._all(tensor.clone())).sum(0))

    def all_gather_into_tensor(self, every: torch.Tensor, mine: torch.Tensor) -> None:
        every.copy_(torch.cat(self._all(mine.clone())))

    def all_gather_object(self, every: list[Any], mine: Any, group: None) -> None:
        every[:] = self._all(mine)

    def gather_object(self, mine: Any, every: list[Any] | None, dst: int, group: None) -> None:
        given = self._all(mine)
        assert (every is not None) == (self._rank.number == dst)
        if every is not None:
            every[:] = given

    def broadcast_object_list(self, items: list[Any], src: int, group: None) -> None:
        items[:] = self._all(list(items))[src]
