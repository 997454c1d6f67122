"""The loader as a torch `IterableDataset`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from torch.utils.data import IterableDataset, get_worker_info
from torch.utils.data._utils.collate import default_collate_fn_map

from prolip.data import LoaderConfig
from prolip.data.device import DeviceBatch
from prolip.interop.epochs import Epochs

_NO_WORKERS = (
    "DataLoader(num_workers=...) must be 0 for a BatchDataset: it has threads of its own (num_threads of its "
    "configuration), and copying batches between processes would cost more than it saves"
)


_NO_BATCHES = (
    "DataLoader(batch_size=...) must be None for a BatchDataset: its items are whole batches already, and "
    "batch_size of its configuration is their size"
)


def _refuse(batch: Sequence[DeviceBatch], *, collate_fn_map: object = None) -> NoReturn:
    """Refuse to collate batches into one; torch's own error would not say what is wrong.

    Raises:
        RuntimeError: always.
    """
    del batch, collate_fn_map
    raise RuntimeError(_NO_BATCHES)


default_collate_fn_map[DeviceBatch] = _refuse


class BatchDataset(IterableDataset[DeviceBatch]):
    """Batches of WebDataset shards, for `DataLoader(BatchDataset(config), batch_size=None)`.

    An item is a whole batch (`prolip.data.device.DeviceBatch`, on the CPU), an iteration is one epoch. `state_dict` and
    `load_state_dict` save and restore the position; torchdata's StatefulDataLoader calls them.
    """

    def __init__(self, config: LoaderConfig, *, rank: int = 0, world_size: int = 1):
        """Opens the shards.

        Args:
            config: settings of the loader; `num_epochs` is not used.
            rank: this process's rank.
            world_size: number of processes that share an epoch.

        Raises:
            ValueError: a setting is invalid.
            DataError: a shard is damaged.
        """
        self.epochs = Epochs(config, rank=rank, world_size=world_size)

    def __iter__(self) -> Iterator[DeviceBatch]:
        """Iterate over the rest of the current epoch.

        Raises:
            DataError: too many samples are unreadable.
            RuntimeError: it is used in a worker process.
        """
        if get_worker_info() is not None:
            raise RuntimeError(_NO_WORKERS)
        return iter(self.epochs)

    def __len__(self) -> int:
        """Return the batches per epoch on this rank.

        Raises:
            TypeError: the length is unknown. (This is what torch expects of datasets without a length.)
        """
        if self.epochs.num_batches is None:
            raise TypeError("the shards are of unknown length: make an index of them with `prolip data index`")
        return self.epochs.num_batches

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration start at the beginning of this epoch."""
        self.epochs.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last batch, as plain values for a checkpoint."""
        return self.epochs.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Make the next iteration resume at the position that `state_dict` returned."""
        self.epochs.load_state_dict(state)

    def close(self) -> None:
        """Stop the threads."""
        self.epochs.close()

    def __getstate__(self) -> NoReturn:
        """Refuse to be pickled for a worker process.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(_NO_WORKERS)
