"""Exchange Python objects between the ranks that write a checkpoint."""

from __future__ import annotations

from typing import TypeVar

import torch.distributed as dist

from prolip.distributed import Ranks

T = TypeVar("T")


class Group:
    """All ranks, in a separate gloo group, so that a background thread can use it during training steps."""

    def __init__(self, ranks: Ranks):
        self._ranks = ranks
        self._group = ranks.new_group()

    @property
    def leads(self) -> bool:
        """Whether this is rank 0."""
        return self._ranks.rank == 0

    def gather(self, item: T) -> list[T]:
        """On rank 0: the items of all ranks, in order. On other ranks: []."""
        if self._group is None:
            return [item]
        items = [item] * self._ranks.world_size if self.leads else None
        dist.gather_object(item, items, dst=0, group=self._group)
        return items or []

    def scatter(self, items: list[T]) -> T:
        """This rank's item of the list on rank 0."""
        if self._group is None:
            return items[0]
        received: list[T | None] = [None]
        dist.scatter_object_list(received, items if self.leads else None, src=0, group=self._group)
        item = received[0]
        assert item is not None
        return item

    def broadcast(self, item: T) -> T:
        """Rank 0's item."""
        items = [item]
        if self._group is not None:
            dist.broadcast_object_list(items, src=0, group=self._group)
        return items[0]
