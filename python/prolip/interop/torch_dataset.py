"""The loader as a torch `IterableDataset`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NoReturn

from torch.utils.data import IterableDataset, get_worker_info
from torch.utils.data._utils.collate import default_collate_fn_map

from prolip.data import LoaderConfig
from prolip.data.device import DeviceBatch
from prolip.interop.epochs import Epochs


def _refuse(batch: Sequence[DeviceBatch], *, collate_fn_map: object = None) -> NoReturn:
    """Torch's own error would not say what is wrong."""
    del batch, collate_fn_map
    raise RuntimeError("batch_size: must be None, because the items of a BatchDataset are batches")


default_collate_fn_map[DeviceBatch] = _refuse


class BatchDataset(Epochs, IterableDataset[DeviceBatch]):
    """Batches of WebDataset shards, for `DataLoader(BatchDataset(config), batch_size=None)`.

    An item is a whole batch (`prolip.data.device.DeviceBatch`, on the CPU), an iteration one epoch. torchdata's
    StatefulDataLoader calls `state_dict` and `load_state_dict`.
    """

    def __init__(self, config: LoaderConfig, *, rank: int = 0, world_size: int = 1):
        """Opens the shards; see `Epochs`."""
        super().__init__(config, rank=rank, world_size=world_size)

    def __iter__(self) -> Iterator[DeviceBatch]:
        """Iterate over the rest of the current epoch; see `Epochs`.

        Raises:
            RuntimeError: it is used in a worker process.
        """
        if get_worker_info() is not None:
            self.__getstate__()
        return super().__iter__()

    def __len__(self) -> int:
        """Batches per epoch on this rank; a TypeError if unknown, as torch expects of datasets without a length."""
        if self.num_batches is None:
            raise TypeError("shards: their length is unknown; make an index with `prolip data index`")
        return self.num_batches

    def __getstate__(self) -> NoReturn:
        """Refused: a worker process cannot have it."""
        raise RuntimeError("num_workers: must be 0, because a BatchDataset has threads of its own")
