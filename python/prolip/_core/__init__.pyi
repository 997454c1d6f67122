"""Types of the compiled loader. `python -m mypy.stubtest prolip._core` compares them with the module."""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol, Self, final

import numpy as np
from numpy.typing import NDArray

from prolip.errors import DataError

from . import testing

__all__ = [
    "IMAGE_EXTENSIONS",
    "MAX_PIXELS",
    "Batch",
    "BatchIterator",
    "BatchLoader",
    "LoaderStats",
    "StageStats",
    "Tokenizer",
    "check_index",
    "decode",
    "decode_only",
    "examine_shards",
    "expand_shards",
    "fetch_shard",
    "grid_of",
    "load_numpy",
    "native_rows",
    "preprocess",
    "preprocess_image",
    "shard_regions",
    "shown_shard",
    "simd_level",
    "simd_levels",
    "testing",
    "usable_cores",
    "write_index",
]

IMAGE_EXTENSIONS: Final[tuple[str, ...]]
MAX_PIXELS: Final[int]

class _Leg(Protocol):
    """`prolip.data.Leg`."""

    @property
    def world_size(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def steps(self) -> int: ...

class _Cursor(Protocol):
    """`prolip.data.Cursor`."""

    @property
    def epoch(self) -> int: ...
    @property
    def legs(self) -> Sequence[_Leg]: ...

@final
class StageStats:
    @property
    def count(self) -> int: ...
    @property
    def seconds(self) -> float: ...

@final
class LoaderStats:
    @property
    def stages(self) -> dict[str, StageStats]: ...
    @property
    def samples(self) -> int: ...
    @property
    def batches(self) -> int: ...
    @property
    def ready(self) -> int: ...
    @property
    def bad(self) -> dict[str, int]: ...
    @property
    def bad_samples(self) -> list[DataError]: ...

@final
class Batch:
    @property
    def images(self) -> NDArray[np.uint8]:
        """[B, H, W, 3]; of a run with a table, the bytes of its values, [B, H, W, 3 * width]: for a table of float32,
        `images.view(np.float32)` is [B, H, W, 3]. Of native images, patches."""
    @property
    def patch_coords(self) -> NDArray[np.int16]: ...
    @property
    def grids(self) -> NDArray[np.int32]: ...
    @property
    def token_ids(self) -> NDArray[np.int32]: ...
    @property
    def masked_token_ids(self) -> NDArray[np.int32] | None: ...
    @property
    def kept_patches(self) -> NDArray[np.int64] | None: ...
    @property
    def rows(self) -> NDArray[np.uint32]: ...
    @property
    def sizes(self) -> NDArray[np.int32]: ...
    @property
    def keys(self) -> list[str]: ...
    @property
    def members(self) -> dict[str, list[bytes | None]]: ...
    @property
    def epoch(self) -> int: ...
    @property
    def legs(self) -> list[tuple[int, int, int]]: ...

@final
class BatchIterator:
    def __iter__(self) -> Self: ...
    def __next__(self) -> Batch: ...
    def close(self) -> None: ...

@final
class BatchLoader:
    def __new__(
        cls,
        config: object,
        tokenizer: Tokenizer | None,
        *,
        rank: int,
        world_size: int,
        resume: _Cursor,
        selection: Iterable[tuple[str, str, NDArray[np.uint32]]] | None = None,
    ) -> Self: ...
    def begin(self, place: _Cursor, table: NDArray[np.uint8] | None = None) -> BatchIterator:
        """Start a run. `table` [3, 256, width] has the 2 or 4 bytes that replace each value of red, green and blue."""
    def close(self) -> None: ...
    def stamps(self) -> list[str]: ...
    def stats(self) -> LoaderStats: ...
    @property
    def num_batches(self) -> int | None: ...
    @property
    def notes(self) -> list[str]: ...
    @property
    def num_samples(self) -> int | None: ...

@final
class Tokenizer:
    @staticmethod
    def from_file(
        path: str | os.PathLike[str],
        context_length: int,
        pad_id: int | None,
        clean: Callable[[list[str]], list[str]] | None = None,
        how: str = "lower",
    ) -> Tokenizer: ...
    @staticmethod
    def clip(
        merges: bytes, context_length: int, clean: Callable[[list[str]], list[str]], how: str = "lower"
    ) -> Tokenizer: ...
    def encode(self, captions: list[str]) -> NDArray[np.int32]: ...
    @property
    def context_length(self) -> int: ...
    @property
    def pad_id(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...

def check_index(shards: list[str], index: str | os.PathLike[str], threads: int, store: object) -> list[str]: ...
def decode(data: bytes) -> NDArray[np.uint8]: ...
def decode_only(
    shards: list[str], images: int, threads: int, store: object, loaded: Callable[[], object]
) -> tuple[int, float]: ...
def examine_shards(shards: list[str], store: object) -> list[tuple[str, int, str | None]]: ...
def expand_shards(shards: list[str], store: object) -> list[str]: ...
def fetch_shard(shard: str, out: str | os.PathLike[str], store: object) -> None: ...
def grid_of(height: int, width: int, patch_size: int, seq_len: int) -> tuple[int, int]: ...
def load_numpy() -> None: ...
def native_rows(dataclass: object) -> list[int]: ...
def preprocess(
    images: Sequence[tuple[NDArray[np.uint8], int] | bytes | str | os.PathLike[str]],
    fit: object,
    size: tuple[int, int],
    table: NDArray[np.uint8] | None = None,
    *,
    native: bool = False,
    turned: bool | None = None,
    threads: int = 1,
) -> tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.int32], list[tuple[int, bool, str]]]: ...
def preprocess_image(data: bytes, size: int) -> NDArray[np.uint8]: ...
def shard_regions(shard: str, store: object) -> tuple[str, list[int]]: ...
def shown_shard(shard: str) -> str: ...
def simd_level() -> str: ...
def simd_levels() -> list[str]: ...
def usable_cores() -> int: ...
def write_index(
    shards: list[str], out: str | os.PathLike[str], threads: int, store: object
) -> tuple[int, int, list[str]]: ...
