"""The loader as a plain torch data set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

from torch.utils.data import IterableDataset, get_worker_info

from prolip.data import LoaderConfig
from prolip.data.device import DeviceBatch
from prolip.interop.epochs import Epochs

_NO_WORKERS = (
    "DataLoader(num_workers=...) must be 0 for a BatchDataset: it reads with threads of its own (num_threads of its "
    "configuration), and copying batches between processes would cost more than it saves"
)


class BatchDataset(IterableDataset[DeviceBatch]):
    """Batches of WebDataset shards for `DataLoader(BatchDataset(config), batch_size=None)`.

    An item is a whole batch (`prolip.data.device.DeviceBatch`, on the CPU), an iteration one epoch. The place is saved
    and restored by `state_dict` and `load_state_dict`, those that StatefulDataLoader of torchdata calls.
    """

    def __init__(self, config: LoaderConfig, *, rank: int = 0, world_size: int = 1):
        """Reads the headers of all shards.

        Args:
            config: What is read, and how; its `num_epochs` is not used.
            rank: This process's place.
            world_size: Processes that share an epoch.

        Raises:
            ValueError: A setting cannot work.
            DataError: A shard is damaged.
        """
        self.epochs = Epochs(config, rank=rank, world_size=world_size)

    def __iter__(self) -> Iterator[DeviceBatch]:
        """The rest of the present epoch; the next iteration is the next epoch's.

        Raises:
            DataError: Too many samples cannot be used.
            RuntimeError: It is used in a worker process.
        """
        if get_worker_info() is not None:
            raise RuntimeError(_NO_WORKERS)
        return iter(self.epochs)

    def __len__(self) -> int:
        """Batches of this rank in a whole epoch.

        Raises:
            TypeError: Nobody knows yet, as torch has it for data sets without a length.
        """
        if self.epochs.num_batches is None:
            raise TypeError("the shards are of unknown length: make an index of them with `prolip data index`")
        return self.epochs.num_batches

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration this epoch's, from its beginning."""
        self.epochs.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Where an iteration goes on behind the last batch that was given."""
        return self.epochs.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Makes the next iteration give what was left of the epoch when `state_dict` was called."""
        self.epochs.load_state_dict(state)

    def close(self) -> None:
        """Ends the threads."""
        self.epochs.close()

    def __getstate__(self) -> NoReturn:
        """A worker process that is not forked would need it.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(_NO_WORKERS)
