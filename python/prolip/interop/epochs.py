"""One epoch an iteration, from a loader that reads on: what other people's training loops expect.

B samples of a batch, H/W pixels, L tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch

from prolip.data import OPENAI_MEAN, OPENAI_STD, BatchLoader, Cursor, LoaderConfig
from prolip.data.device import DeviceBatch, DeviceBatches, DeviceStats, device_batches


class Epochs:
    """Every `iter()` gives an epoch's batches, in an order of its own, and the next `iter()` those of the next epoch.

    The threads read on into the next epoch, so that it begins without waiting. An iteration that is left before its end
    begins again at its beginning; `load_state_dict` makes it go on in the middle.
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
        """Reads the headers of all shards.

        Args:
            config: What is read, and how; its `num_epochs` is not used.
            rank: This process's place.
            world_size: Processes that share an epoch.
            device: Where the batches go; by default a CPU.
            dtype: Of the pictures.
            mean: What is taken off red, green and blue, as shares of 255.
            std: What they are then divided by.

        Raises:
            ValueError: A setting cannot work.
            DataError: A shard is damaged.
        """
        self._config = dataclasses.replace(config, num_epochs=None)
        self._world_size = world_size
        self._device = device or torch.device("cpu")
        self._dtype, self._mean, self._std = dtype, mean, std
        self._loader = BatchLoader(self._config, rank=rank, world_size=world_size)
        self._batches: DeviceBatches | None = None
        self._place, self._whole = (
            Cursor(),
            True,
        )  # where the next iteration begins; whether that is an epoch's beginning
        self._stands: Cursor | None = None  # what the threads go on with
        self._last: Cursor | None = None  # the last batch of the iteration that goes on
        self._held: DeviceBatch | None = None  # the next epoch's first batch, where only it showed that one had ended

    @property
    def num_batches(self) -> int | None:
        """Batches of this rank in a whole epoch; None where nobody knows yet."""
        return self._loader.num_batches

    @property
    def num_samples(self) -> int | None:
        """Samples that all ranks together are given in an epoch; None where nobody knows yet."""
        if self._config.last_batch == "keep" or self.num_batches is None:
            return self._loader.num_samples
        return self.num_batches * self._config.batch_size * self._world_size

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration this epoch's, from its beginning."""
        self._place, self._last, self._whole = Cursor(epoch=epoch), None, True

    def __iter__(self) -> Iterator[DeviceBatch]:
        """The rest of the present epoch.

        Raises:
            DataError: Too many samples cannot be used.
            RuntimeError: It was closed, or is used in a forked child.
        """
        begun_at = self._place
        if self._batches is None or self._stands != begun_at:
            self._held = None
            self._loader.load_state_dict(begun_at.to_dict())
            self._batches = device_batches(
                self._loader, self._device, dtype=self._dtype, mean=self._mean, std=self._std
            )
        left = self.num_batches if self._whole else None
        while left is None or left > 0:
            batch = self._held or next(self._batches)
            self._held = None
            if batch.cursor.epoch != begun_at.epoch:
                self._held = batch
                break
            self._stands = self._last = batch.cursor
            left = None if left is None else left - 1
            yield batch
            del batch
        self.set_epoch(begun_at.epoch + 1)
        self._stands = self._place

    def state_dict(self) -> dict[str, Any]:
        """Where an iteration goes on behind the last batch that was given: plain values, for a checkpoint."""
        return (self._last or self._place).to_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Makes the next iteration give what was left of the epoch when `state_dict` was called."""
        self._place, self._last, self._whole = Cursor.from_dict(state), None, False

    def stats(self) -> DeviceStats | None:
        """What the batches since the last restart cost, and how long was waited for them; None before the first."""
        return None if self._batches is None else self._batches.stats()

    def close(self) -> None:
        """Ends the threads."""
        self._batches = self._held = None
        self._loader.close()
