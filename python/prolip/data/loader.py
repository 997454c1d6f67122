"""`BatchLoader`: batches of uint8 images and token ids from WebDataset shards, made in Rust threads.

B samples per batch (on this rank), H/W pixels, C caption slots, L tokens, M masked rows, K kept patches.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from prolip import _core
from prolip._core import LoaderStats
from prolip.data.config import LoaderConfig
from prolip.data.tokenizer import Tokenizer
from prolip.errors import UserError

logger = logging.getLogger(__name__)

_core.load_numpy()  # now, because an interrupt while the first batch loads it would be a panic

Members = dict[str, list[bytes | None]]
"""By extension: one entry per sample, None where it lacks the member."""


@dataclass(frozen=True, kw_only=True)
class Leg:
    """A part of an epoch that was read with one `world_size` and `batch_size`.

    With `native` the batch size is 1, and `steps` is the number of samples that each rank has read.
    """

    world_size: int
    batch_size: int
    steps: int


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """The position of a run in its data, the same on every rank.

    With another number of ranks or batch size, the rest of the epoch is divided again, and each sample is read once.
    """

    epoch: int = 0
    legs: tuple[Leg, ...] = ()
    """Those that were read of this epoch."""

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        """Undo `to_dict`.

        Raises:
            UserError: not a cursor, or from a version that ordered samples differently.
        """
        try:
            return cls(**{**state, "legs": tuple(Leg(**leg) for leg in state["legs"])})
        except (KeyError, TypeError) as error:
            raise UserError("resume", "must be a cursor of this version", state) from error


class PatchArrays(NamedTuple):
    """Images of a native batch, padded to its sequence length L; P is the side of a patch."""

    patches: NDArray[np.uint8]
    """[B, L, P * P * 3]; zeros where there is no patch. Pixels as in `prolip.images.tensors`."""
    patch_coords: NDArray[np.int16]
    """[B, L, 2]: row and column of each patch."""
    grids: NDArray[np.int32]
    """[B, 2]: rows and columns of patches in each image."""
    patch_valid: NDArray[np.bool_]
    """[B, L]; False for padding."""


class Batch(NamedTuple):
    """One batch on one rank. The arrays share the loader's memory, which it reuses after all of them are dropped."""

    images: NDArray[np.uint8] | PatchArrays
    """[B, H, W, 3]; from `BatchLoader.translated` the bytes of other values, [B, H, W, 3 * width]. With `native`,
    patches."""
    token_ids: NDArray[np.int32]
    """[C, B, L]."""
    masked_token_ids: NDArray[np.int32] | None
    """[C, M, L], of the first M rows; None if nothing is masked or there are no captions."""
    kept_patches: NDArray[np.int64] | None
    """[M, K], sorted indices of the kept patches of the first M rows; None if nothing is masked. With `native`, a row
    that keeps fewer ends with -1."""
    rows: NDArray[np.uint32]
    """[B], places of the samples in their shards, from 0, unreadable samples included."""
    sizes: NDArray[np.int32]
    """[B, 2], width and height of the encoded images; 0 if `image_size` is 0. Orientation tags count with `native`
    only."""
    keys: list[str]
    members: Members
    """Those that `keep_members` names, B per extension."""
    cursor: Cursor
    """Where to resume after this batch, whatever was prefetched."""


def _patches(batch: _core.Batch) -> PatchArrays:
    valid = np.arange(batch.images.shape[1]) < batch.grids.prod(axis=1)[:, None]
    return PatchArrays(batch.images, batch.patch_coords, batch.grids, valid)


def _chosen(selection: str, shards: Sequence[str]) -> Iterator[tuple[str, str, NDArray[np.uint32]]]:
    from prolip.store.selection import read_selection  # pyarrow takes long to import

    # `prolip embed` opens the shards of a selection one by one.
    only = shards[0] if len(shards) == 1 else ""
    own = [one for one in read_selection(selection, only) if one.source == only]
    for one in own or read_selection(selection):
        yield one.source, one.stamp, one.rows if one.repeats is None else np.repeat(one.rows, one.repeats)


class BatchLoader:
    """Iterates over batches of WebDataset shards.

    Each `iter()` starts at `resume` and stops the previous iterator. Closing, or dropping the iterator, joins the
    threads. `state_dict()` and `load_state_dict()` follow torchdata's stateful loaders.
    """

    def __init__(self, config: LoaderConfig, *, rank: int = 0, world_size: int = 1, resume: Cursor | None = None):
        """Read the headers of all local shards, unless there is an index.

        Raises:
            UserError: A setting is invalid.
            NoSampleError: The shards are intact, but hold no sample. A `UserError`.
            DataError: A shard is missing or is not an archive. Damage further on is logged, and counts as a bad sample.
        """
        if isinstance(config.shards, str):
            shown = _core.shown_shard(config.shards)
            raise UserError("shards", "must be a tuple of paths, addresses or patterns", f"{shown!r}")
        self.config = config
        tokenizer = Tokenizer(config.tokenizer).core if config.captions else None
        self._resume = self._last = resume or Cursor()
        self._core = _core.BatchLoader(
            config,
            tokenizer,
            rank=rank,
            world_size=world_size,
            resume=self._resume,
            selection=None if config.selection is None else _chosen(config.selection, config.shards),
        )
        self._loaded: Cursor | None = None
        for note in self._core.notes:
            logger.warning("%s", note)

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the batches of all epochs. Threads begin at once.

        Raises:
            DataError: Too many samples are unreadable.
            RuntimeError: The loader was closed, or is used in a forked child.
        """
        return self.translated(None)

    def translated(self, table: NDArray[np.uint8] | None) -> Iterator[Batch]:
        """As `iter()`, but the threads replace each value of red, green and blue by an entry of a table.

        Args:
            table: uint8 [3, 256, width], the bytes of values such as float32; None for no change.
        """
        # At once: a state saved before the first batch must not be an earlier iterator's.
        self._last, self._loaded = self._loaded or self._resume, None
        return self._batches(self._core.begin(self._last, table))

    def _batches(self, run: _core.BatchIterator) -> Iterator[Batch]:
        try:
            for batch in run:
                legs = [Leg(world_size=ranks, batch_size=size, steps=steps) for ranks, size, steps in batch.legs]
                self._last = Cursor(epoch=batch.epoch, legs=tuple(legs))
                yield Batch(
                    images=batch.images if self.config.native is None else _patches(batch),
                    token_ids=batch.token_ids,
                    masked_token_ids=batch.masked_token_ids,
                    kept_patches=batch.kept_patches,
                    rows=batch.rows,
                    sizes=batch.sizes,
                    keys=batch.keys,
                    members=batch.members,
                    cursor=self._last,
                )
                del batch
        finally:
            run.close()

    def state_dict(self) -> dict[str, Any]:
        """The cursor of the last batch yielded. With `device_batches`, save `batch.cursor` instead."""
        return (self._loaded or self._last).to_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The next `iter()` resumes from this state.

        Raises:
            UserError: `state` is not a cursor.
        """
        self._loaded = Cursor.from_dict(state)

    @property
    def num_batches(self) -> int | None:
        """Per epoch on this rank; None as long as the length of a shard is unknown."""
        return self._core.num_batches

    @property
    def num_samples(self) -> int | None:
        """Per epoch over all ranks; None as long as the length of a shard is unknown."""
        return self._core.num_samples

    def stamps(self) -> list[str]:
        """Of each opened shard: its number of samples and a checksum of their positions.

        Copies have the same one; "" until a remote shard without an index has arrived.
        """
        return self._core.stamps()

    def stats(self) -> LoaderStats:
        """Seconds per stage and sample counts of the current (or last) iterator."""
        return self._core.stats()

    def close(self) -> None:
        """Stop the iterator and join its threads."""
        self._core.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


decode = _core.decode
"""Pixels, uint8 [H, W, 3], as of PIL's `convert("RGB")`; else a DataError."""

grid_of = _core.grid_of
"""Rows and columns of the largest grid of at most `seq_len` patches with the aspect ratio of `height` x `width` pixels,
rounded up in both directions (timm's `get_image_size_for_seq`). It may enlarge the image."""

preprocess_image = _core.preprocess_image
"""The loader's evaluation transform, uint8 [size, size, 3]; see `docs/specification.md`."""
