"""The loader: WebDataset shards to batches, read, decoded, augmented, tokenised and masked by threads in Rust.

Shapes: B samples of a batch (this rank's), H/W pixels, C captions a sample, L tokens, M masked rows, K kept patches.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from prolip import _core
from prolip._core import (
    DataError,
    LoaderStats,
    NoSampleError,
    StageStats,
    check_index,
    decode_only,
    examine_shards,
    expand_shards,
    fetch_shard,
    shown_shard,
    write_index,
)
from prolip.data.config import (
    AugmentConfig,
    CaptionConfig,
    CaptionSource,
    LoaderConfig,
    MaskConfig,
    StoreConfig,
)
from prolip.data.tokenizer import Tokenizer
from prolip.normalization import OPENAI_MEAN, OPENAI_STD

__all__ = [
    "OPENAI_MEAN",
    "OPENAI_STD",
    "AugmentConfig",
    "Batch",
    "BatchLoader",
    "CaptionConfig",
    "CaptionSource",
    "Cursor",
    "DataError",
    "Leg",
    "LoaderConfig",
    "LoaderStats",
    "MaskConfig",
    "Members",
    "NoSampleError",
    "StageStats",
    "StoreConfig",
    "check_index",
    "decode_only",
    "examine_shards",
    "expand_shards",
    "fetch_shard",
    "preprocess_image",
    "shown_shard",
    "write_index",
]

logger = logging.getLogger(__name__)

Members = dict[str, list[bytes | None]]
"""Members of some samples by extension, as they lie in their shards: one for each sample, None where it has none."""


@dataclass(frozen=True, kw_only=True)
class Leg:
    """Steps that a run took in an epoch with one number of ranks and one batch size."""

    world_size: int
    """Number of ranks."""
    batch_size: int
    """Samples of one rank's batch."""
    steps: int
    """Steps taken."""


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """Where a run stands, the same on every rank. A loader that resumes there goes on with the next batch; with another
    number of ranks or batch size it divides anew what is left of the epoch, each sample once."""

    epoch: int = 0
    """The epoch, from 0."""
    legs: tuple[Leg, ...] = ()
    """What was done of it; the last leg goes on where ranks and batch size are the same."""

    def to_dict(self) -> dict[str, Any]:
        """The cursor as plain numbers and containers, for checkpoints."""
        return asdict(self)

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        """The cursor that `to_dict` gave.

        Raises:
            ValueError: It is not one; cursors of versions whose order was another are not.
        """
        try:
            return cls(**{**state, "legs": tuple(Leg(**leg) for leg in state["legs"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"resume is {dict(state)}: it is no cursor of this version's order of samples") from error


class Batch(NamedTuple):
    """One rank's batch. The arrays are the loader's memory, used again once all of them are dropped."""

    images: NDArray[np.uint8]
    """[B, H, W, 3]."""
    token_ids: NDArray[np.int32]
    """[C, B, L]."""
    masked_token_ids: NDArray[np.int32] | None
    """[C, M, L], texts of the first M rows; None where nothing is masked or there are no captions."""
    kept_patches: NDArray[np.int64] | None
    """[M, K], sorted patch indices of the first M rows; None where nothing is masked."""
    keys: list[str]
    """The samples' keys, B of them."""
    members: Members
    """The members that `keep_members` names, B of each extension."""
    cursor: Cursor
    """Where a run goes on after this batch, whatever was prefetched."""


class BatchLoader:
    """Batches of WebDataset shards. Every `iter()` begins at `resume` (or the start) and ends the run before.

    Use it as a context manager, or call `close()`: either joins the threads, as does dropping the iterator.
    `state_dict()` and `load_state_dict()` are those of torchdata's stateful loaders.
    """

    def __init__(self, config: LoaderConfig, *, rank: int = 0, world_size: int = 1, resume: Cursor | None = None):
        """Reads the headers of all local shards, unless an index says where their samples lie. Of others nothing is
        asked before it is needed.

        Raises:
            ValueError: A setting cannot work; the message names the field, its value and the rule.
            NoSampleError: The shards are whole, but hold no sample. A `ValueError`.
            DataError: A shard is no archive or is missing; the message names it. One that is damaged further on is
                logged: the samples before the damage are used, the damage is a bad sample.
        """
        self.config = config
        tokenizer = Tokenizer(config.tokenizer).core if config.captions else None
        self._core = _core.BatchLoader(config, tokenizer, rank=rank, world_size=world_size, resume=resume)
        self._resume = self._last = resume if resume is not None else Cursor()
        self._loaded: Cursor | None = None
        for note in self._core.notes:
            logger.warning("%s", note)

    def __iter__(self) -> Iterator[Batch]:
        """The batches of all epochs.

        Raises:
            DataError: Too many samples cannot be used.
            RuntimeError: The loader was closed, or is used in a forked child.
        """
        begin, self._loaded = self._loaded or self._resume, None
        return self._batches(begin)

    def _batches(self, begin: Cursor) -> Iterator[Batch]:
        run, self._last = self._core.begin(begin), begin
        try:
            for batch in run:
                legs = [Leg(world_size=ranks, batch_size=size, steps=steps) for ranks, size, steps in batch.legs]
                self._last = Cursor(epoch=batch.epoch, legs=tuple(legs))
                yield Batch(
                    images=batch.images,
                    token_ids=batch.token_ids,
                    masked_token_ids=batch.masked_token_ids,
                    kept_patches=batch.kept_patches,
                    keys=batch.keys,
                    members=batch.members,
                    cursor=self._last,
                )
                del batch
        finally:
            run.close()

    def state_dict(self) -> dict[str, Any]:
        """The cursor of the last batch that an iterator gave, as `Cursor.to_dict` has it. Where batches are copied
        ahead (`device_batches`), the cursor on the batch itself is the one to save."""
        return (self._loaded or self._last).to_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The next `iter()` goes on behind the batch after which `state_dict()` gave this state; later ones begin at
        `resume` again.

        Raises:
            ValueError: The state is none, as `Cursor.from_dict` says; whether it fits the data, `iter()` says.
        """
        self._loaded = Cursor.from_dict(state)

    @property
    def num_batches(self) -> int | None:
        """Batches of this rank in an epoch; None where that turns out only as shards of unknown length come in."""
        return self._core.num_batches

    @property
    def num_samples(self) -> int | None:
        """Samples of an epoch over all ranks; None where that turns out only as shards of unknown length come in."""
        return self._core.num_samples

    def stats(self) -> LoaderStats:
        """Seconds by stage, and the samples tried for the batches so far, of the present run or of the last."""
        return self._core.stats()

    def close(self) -> None:
        """Ends the run and joins its threads. A call while another thread is in one does not wait for that."""
        self._core.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def preprocess_image(data: bytes, size: int) -> NDArray[np.uint8]:
    """The evaluation transform of an encoded picture, uint8 [size, size, 3]: the loader's own code.

    The shortest side is resized to `size` (bicubic, antialiased), then the centre is cut out.

    Raises:
        DataError: The bytes are no picture that can be decoded.
        ValueError: `size` is out of range.
    """
    return _core.preprocess_image(data, size)
