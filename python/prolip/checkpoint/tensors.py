"""Read and write a checkpoint's tensors with torch.distributed.checkpoint, whole or sharded, by any number of ranks.

Its planners and storage are called directly: reading needs no process group, saving no exchange.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan, WriteItem
from torch.distributed.checkpoint.storage import WriteResult

from prolip.checkpoint.folder import CheckpointError, FileRecord, record
from prolip.distributed import Ranks
from prolip.store.disk_full import writing

METADATA = ".metadata"
_CLASSES = {
    "torch": ("Size",),
    "torch.serialization": ("_get_layout",),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo",),
    "torch.distributed.checkpoint.metadata": (
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    ),
    "pathlib": ("PosixPath",),
    "pathlib._local": ("PosixPath",),
}
"""Classes that the metadata's pickle may name, besides dtypes."""


# ---- Writing ----


class Written(NamedTuple):
    """The files that a rank has written."""

    results: list[WriteResult]
    """Where its tensors are."""
    files: dict[str, FileRecord]


class TensorShare:
    """This rank's share of a run's tensors; ranks divide tensors that they all have.

    All ranks create it together, with the same tensors except those that only one rank has.
    """

    def __init__(self, tensors: Mapping[str, Tensor], ranks: Ranks):
        leads = ranks.rank == 0
        planner = _planner(tensors, leads=leads)
        plans = ranks.gather(planner.create_local_plan())
        self._metadata: Metadata | None = None
        if leads:
            plans, self._metadata = planner.create_global_plan(plans)
            plans = FileSystemWriter("").prepare_global_plan(plans)
        self._plan: SavePlan = ranks.scatter(plans)
        self._names = _names(tensors)
        self._copies: dict[MetadataIndex, Tensor] = {}

    def fits(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether names, shapes and dtypes are still the same."""
        return _names(tensors) == self._names

    def copy(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy this rank's share to the host, into reused memory, page-locked for a GPU."""
        planner, devices = _planner(tensors), set()
        for item in self._plan.items:
            source = cast(Tensor, planner.resolve_data(item)).detach()
            if item.index not in self._copies:
                pinned = source.device.type == "cuda"
                self._copies[item.index] = torch.empty(source.shape, dtype=source.dtype, pin_memory=pinned)
            self._copies[item.index].copy_(source, non_blocking=True)
            devices.add(source.device)
        for device in devices:
            if device.type == "cuda":
                torch.cuda.current_stream(device).synchronize()

    def write(self, folder: Path) -> Written:
        """To disk."""
        writer = FileSystemWriter(folder, per_thread_copy_ahead=0)
        folder.mkdir(parents=True, exist_ok=True)
        with writing(folder, sum(copy.nbytes for copy in self._copies.values())):
            results = writer.write_data(self._plan, _Copies(self._copies)).wait()
        names = {result.storage_data.relative_path for result in results}
        return Written(results, {name: record(folder / name) for name in names})

    def write_metadata(self, folder: Path, written: Sequence[Written]) -> FileRecord:
        """On rank 0: where all ranks' tensors are."""
        assert self._metadata is not None
        FileSystemWriter(folder).finish(self._metadata, [of_rank.results for of_rank in written])
        return record(folder / METADATA)


class _Copies(DefaultSavePlanner):
    """In place of the tensors that the plan was made for."""

    def __init__(self, copies: Mapping[MetadataIndex, Tensor]):
        super().__init__()
        self._copies = copies

    def resolve_data(self, write_item: WriteItem) -> Tensor:
        return self._copies[write_item.index]


def _planner(tensors: Mapping[str, Tensor], *, leads: bool = False) -> DefaultSavePlanner:
    planner = DefaultSavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    planner.set_up_planner(dict(tensors), is_coordinator=leads)
    return planner


def _names(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


# ---- Reading ----


def stored_tensors(path: Path) -> dict[str, TensorStorageMetadata]:
    """Their shapes and dtypes."""
    found = _read_metadata(path).state_dict_metadata
    return {name: about for name, about in found.items() if isinstance(about, TensorStorageMetadata)}


def read_into(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Read the named tensors in place; of a sharded tensor, this rank's shard.

    Raises:
        CheckpointError: a tensor is not in the checkpoint, has another shape or dtype, or cannot be read.
    """
    stored = stored_tensors(path)
    for name, tensor in tensors.items():
        if name not in stored:
            raise CheckpointError(path, f"has no tensor {name}")
        found, expected = (stored[name].size, stored[name].properties.dtype), (tensor.shape, tensor.dtype)
        if found != expected:
            raise CheckpointError(
                path, f"{name} must be {list(expected[0])}, {expected[1]}", f"{list(found[0])}, {found[1]}"
            )
    reader, planner = (
        FileSystemReader(path),
        DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False),
    )
    metadata = _read_metadata(path)
    planner.set_up_planner(dict(tensors), metadata, is_coordinator=True)
    reader.set_up_storage_reader(metadata, is_coordinator=True)
    try:
        reader.read_data(planner.finish_plan(planner.create_local_plan()), planner).wait()
    except (OSError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a file that torch did not write can raise anything
        raise CheckpointError(path, f"its tensors cannot be read ({type(error).__name__})") from error


def read_whole(path: Path, prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, which is removed; whole, on the CPU."""
    tensors = {
        name: torch.empty(about.size, dtype=about.properties.dtype)
        for name, about in stored_tensors(path).items()
        if name.startswith(prefix)
    }
    read_into(path, tensors)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def _read_metadata(path: Path) -> Metadata:
    """Without running code from the pickle."""
    try:
        with (path / METADATA).open("rb") as file:
            metadata = _Unpickler(file).load()
        assert isinstance(metadata, Metadata), f"it is a {type(metadata).__name__}"
    except OSError:
        raise
    except Exception as error:  # a pickle can raise anything
        raise CheckpointError(path, f"{METADATA} cannot be read: {error}") from error
    return metadata


class _Unpickler(pickle.Unpickler):
    """Allows only dtypes and the classes of the metadata."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("builtins", "getattr"):
            return _member
        is_type = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if not is_type and name not in _CLASSES.get(module, ()):
            raise pickle.UnpicklingError(f"it names {module}.{name}, which the metadata of tensors does not need")
        return super().find_class(module, name)


def _member(kind: object, name: str) -> Enum:
    """An early Python 3.11, such as Debian 12's, pickles an enum's member as a call of `getattr`."""
    if not (isinstance(kind, type) and issubclass(kind, Enum)):
        shown = getattr(kind, "__name__", kind)
        raise pickle.UnpicklingError(f"it reads {shown}.{name}, and only members of enums may be read")
    return kind[name]
