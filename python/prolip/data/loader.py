"""The loader: WebDataset shards to batches, read, decoded, augmented, tokenised and masked by threads in Rust.

Shapes: B samples of a batch (this rank's), H/W pixels, C captions a sample, L tokens, M masked rows, K kept patches.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

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
from prolip.data.tokenizer import Tokenizer, TokenizerConfig
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
class AugmentConfig:
    """How a training picture is varied; the defaults are those of the published recipes."""

    crop_scale: tuple[float, float] = (0.8, 1.0)
    """Share of the picture's area that a crop covers, lowest and highest."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width over height of a crop, lowest and highest."""
    jitter: tuple[float, float, float, float] = (0.32, 0.32, 0.32, 0.08)
    """Strength of brightness, contrast, saturation and hue; the four are applied in random order."""
    jitter_prob: float = 0.8
    """Probability of colour jitter."""
    gray_prob: float = 0.2
    """Probability that a picture loses its colour."""


@dataclass(frozen=True, kw_only=True)
class CaptionSource:
    """Where a caption comes from."""

    key: str = "txt"
    """`txt`, or a dotted path into the sample's json. Of a list one text is drawn, equally often unless weighted;
    what is no text is passed over. A name behind a list, with or without `*`, is a name in each of its elements
    (`sentences.raw`, `sentences.*.raw`), a number the place of one (`sentences.0.raw`). An empty text is a caption."""
    weight: float = 1.0
    """How often this source is drawn, relative to its neighbours."""
    general: tuple[str, ...] = ()
    """Dotted paths of more general captions of the same sample; for hierarchical masking one is drawn uniformly."""
    list_weights: tuple[float, ...] = ()
    """How often each element of a list is drawn, by place; those behind the last weight never. () for equally often."""
    list_weights_key: str | None = None
    """Dotted path of the elements' weights in the same json (`sentences.score`): as many numbers as `key` leads to
    texts."""


@dataclass(frozen=True, kw_only=True)
class CaptionConfig:
    """One caption slot: every sample gives one caption to each."""

    sources: tuple[CaptionSource, ...] = (CaptionSource(),)
    """The sources, of which one is drawn by weight."""


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """Masked rows: the first `int(B * masked_fraction)` samples of a batch (SPEC §7)."""

    masked_fraction: float = 0.125
    """Share of a batch's rows that have masked texts and pictures: at least one row of a full batch. The smaller last
    batch of `last_batch="keep"` may have none."""
    text_mode: Literal["replace", "remove"] = "replace"
    """`replace`: a masked token becomes `mask_id`. `remove`: it goes, the rest moves left, at least one token stays."""
    text_mask_prob: float = 0.75
    """Probability that a token is masked; padding never is. A token with the padding's id is a token (CLIP's `!`)."""
    mask_id: int = 32000
    """The id that replaces masked tokens; `remove` does not use it."""
    patch_draw: Literal["batch", "sample"] = "batch"
    """One set of kept patches for all masked rows of a batch, or one for each."""
    keep_ratio: float = 0.75
    """Share of patches that are kept: `int(num_patches * keep_ratio)` of them."""
    num_patches: int = 196
    """Patches of a picture."""
    general_prob: float = 0.0
    """Probability that the masked text is a more general caption, where the drawn source names any."""


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """How shards that are no plain local files are read: their bytes are fetched into files of a local folder."""

    allow_pipe: bool = False
    """Whether "pipe:COMMAND" runs commands."""
    connections: int = 8
    """Ranges of 8 MiB that are fetched at the same time."""
    read_ahead_bytes: int = 4 * 2**30
    """Bytes on the disk that shards ahead of their use may take; several should fit."""
    cache_dir: str | None = None
    """Folder of the fetched bytes; None for one in the system's temporary folder."""
    cache_bytes: int = 0
    """Bytes of whole shards that are kept after use in `cache_dir`, for all processes that name it; 0 keeps none."""
    retries: int = 10
    """Times that a request is tried again; one that brought bytes before it broke does not count."""
    timeout_s: float = 30.0
    """Seconds without a byte after which a request counts as broken."""


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """Everything a loader is told, except its rank."""

    shards: tuple[str, ...]
    """Paths, addresses, brace patterns, globs, or text files that list them (`.txt` or `@FILE`)."""
    weights: tuple[float, ...] = ()
    """With `mode="resampled"`, how often a shard of each pattern is drawn, relative to a shard of the others; () for
    equally often."""
    index: str | None = None
    """File of an index of the shards, made by `prolip data index`: opening then reads no shard. A shard that is not in
    it, or has changed since, is an error."""
    mode: Literal["once", "resampled"] = "once"
    """`once`: every sample of every shard once an epoch. `resampled`: shards drawn with replacement, by `weights`."""
    num_samples: int | None = None
    """Samples of an epoch over all ranks, where the shards do not say: they are resampled, or of unknown length, which
    is those that are not local and in no index. Ranks then read shards of their own, and go round them again if they
    hold too few samples; with `last_batch="keep"` an epoch is what the shards hold."""
    batch_size: int
    """Samples of this rank's batch."""
    image_size: int
    """Side of a picture in the batch, in pixels; with 0 no picture is decoded, for whoever wants members alone."""
    augment: AugmentConfig | None = None
    """Random augmentation; None is the evaluation transform."""
    captions: tuple[CaptionConfig, ...] = (CaptionConfig(),)
    """One entry a caption slot; () reads no text."""
    mask: MaskConfig | None = None
    """Masked rows; None for none."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    """Captions to ids; not used without captions."""
    seed: int = 0
    """Seed of every draw."""
    num_epochs: int | None = 1
    """Passes over the data; None for no end."""
    shuffle_window: int = 10_000
    """Samples that are shuffled together, after the shards; 0 keeps the order of the files."""
    last_batch: Literal["drop", "pad", "keep"] = "drop"
    """Each rank reads one contiguous part of an epoch. `drop` and `pad` (training): every batch full, as many on every
    rank, bad samples replaced by others; what does not fill a last batch is left out, or filled up from the beginning
    of the rank's part. `keep` (evaluation): the last batch is smaller, bad samples are left out; ranks may differ by
    one batch, so that a collective operation per batch would hang."""
    num_threads: int = 0
    """Threads; 0 divides the cores that this process may use (its affinity, its cgroup's quota) by torchrun's
    LOCAL_WORLD_SIZE."""
    prefetch_batches: int = 4
    """Batches that are begun or wait before they are asked for."""
    max_bad_fraction: float = 0.01
    """Share of unreadable samples past which the loader raises DataError: judged with every batch, with slack for
    chance (4 standard deviations; none if this is 0), and exactly when an epoch ends. The same run always fails at the
    same batch, behind those before it."""
    max_pixels: int = _core.MAX_PIXELS
    """Pixels of a picture, at most; larger ones are bad samples."""
    max_member_bytes: int = _core.MAX_MEMBER_BYTES
    """Bytes of a sample's members together, at most; larger ones are bad samples."""
    max_caption_bytes: int = _core.MAX_CAPTION_BYTES
    """Bytes of a caption, at most; samples with longer ones are bad."""
    on_missing_shard: Literal["raise", "skip"] = "raise"
    """A shard that cannot be opened: `raise` an error that names it, at opening or at the batch that needs it; or
    `skip` it, with a warning, and count its samples as bad ones where it vanishes later (as one, where nobody knows how
    many they are)."""
    decode: Literal["exact", "fast"] = "exact"
    """`exact`: Pillow's pixels, bit for bit. `fast`: a JPEG's planes are resized before they become colours, in less
    time; its pixels are off by half a level on average and by dozens at a few edges (decision 010). All other files,
    and processors without AVX-512, have exact pixels in either mode."""
    store: StoreConfig = field(default_factory=StoreConfig)
    """How shards that are no plain local files are read."""
    keep_members: tuple[str, ...] = ()
    """Extensions, in lower case, of members that batches carry as they are (`json`, `cls`, `npy`), those of pictures
    included. They count for `max_member_bytes`."""


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
