"""One epoch per iteration, as most training loops expect, from a loader that keeps reading ahead.

B samples per batch, H/W pixels, L tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch

from prolip.data import BatchLoader, Cursor, LoaderConfig
from prolip.data.device import DeviceBatch, DeviceBatches, DeviceStats, device_batches
from prolip.images.tensors import OPENAI_MEAN, OPENAI_STD


class Epochs:
    """Iterates over one epoch per `iter()`; the next `iter()` is the next epoch, in its own order.

    Threads prefetch the next epoch. An iteration that is left early starts over, unless `load_state_dict` resumes it.
    """

    def __init__(
        self,
        config: LoaderConfig,
        *,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        mean: tuple[float, float, float] = OPENAI_MEAN,
        std: tuple[float, float, float] = OPENAI_STD,
    ):
        """Opens the shards.

        Args:
            config: `num_epochs` is not used.
            rank: this process's rank.
            world_size: number of processes that share an epoch.
            device: of the batches; by default a CPU.
            dtype: of the images.
            mean: subtracted from red, green and blue after division by 255.
            std: divisors of red, green and blue after that.

        Raises:
            ValueError: a setting is invalid.
            DataError: a shard is damaged.
        """
        self._config = dataclasses.replace(config, num_epochs=None)
        self._world_size = world_size
        self._device = device or torch.device("cpu")
        self._dtype, self._mean, self._std = dtype, mean, std
        self._loader = BatchLoader(self._config, rank=rank, world_size=world_size)
        self._batches: DeviceBatches | None = None
        # Where the next iteration starts, and whether an epoch does so there.
        self._start, self._whole = Cursor(), True
        # Where `self._batches` continues.
        self._position: Cursor | None = None
        # Of the last batch of the current iteration.
        self._last: Cursor | None = None
        # The first batch of the next epoch, if it was read to see that the epoch had ended.
        self._held: DeviceBatch | None = None

    @property
    def num_batches(self) -> int | None:
        """Batches per epoch on this rank; None while unknown."""
        return self._loader.num_batches

    @property
    def num_samples(self) -> int | None:
        """Per epoch, that all ranks yield together; with `native`, and those of a dropped last batch. None while
        unknown."""
        if self._config.last_batch == "keep" or self._config.native is not None or self.num_batches is None:
            return self._loader.num_samples
        return self.num_batches * self._config.batch_size * self._world_size

    def set_epoch(self, epoch: int) -> None:
        """The next iteration starts at the beginning of this epoch."""
        self._start, self._last, self._whole = Cursor(epoch=epoch), None, True

    def __iter__(self) -> Iterator[DeviceBatch]:
        """Iterate over the rest of the current epoch.

        Raises:
            DataError: too many samples are unreadable.
            RuntimeError: the loader was closed, or is used in a forked child.
        """
        start = self._start
        if self._batches is None or self._position != start:
            self._held = None
            self._loader.load_state_dict(start.to_dict())
            self._batches = device_batches(
                self._loader, self._device, dtype=self._dtype, mean=self._mean, std=self._std
            )
        # Another iteration may begin before this one ends; neither takes the other's batches.
        batches, held, self._held = self._batches, self._held, None
        left = self.num_batches if self._whole else None
        while left is None or left > 0:
            # None if this rank reads no sample in any epoch.
            batch, held = held or next(batches, None), None
            if batch is None:
                break
            if batch.cursor.epoch != start.epoch:
                self._held = batch
                break
            self._position = self._last = batch.cursor
            left = None if left is None else left - 1
            yield batch
            del batch
        self.set_epoch(start.epoch + 1)
        self._position = self._start

    def state_dict(self) -> dict[str, Any]:
        """The position after the last batch, as plain values."""
        return (self._last or self._start).to_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next iteration resumes where `state_dict` was called."""
        self._start, self._last, self._whole = Cursor.from_dict(state), None, False

    def stats(self) -> DeviceStats | None:
        """Where the time went since the last restart; None before the first iteration."""
        return None if self._batches is None else self._batches.stats()

    def close(self) -> None:
        """Stop the threads."""
        self._batches = self._held = None
        self._loader.close()
