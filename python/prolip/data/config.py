"""Settings of the loader, the tokenizer and the index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import tyro

from prolip import _core

Value = TypeVar("Value")
Derived = Annotated[Value, tyro.conf.Suppress]
"""A field that follows from other settings of a training run, so that `prolip train` has no flag for it."""


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Which tokenizer, and the shape of what it returns."""

    kind: Literal["clip", "file"] = "clip"
    """`clip`: ids of open_clip's SimpleTokenizer. `file`: a Hugging Face tokenizer.json."""
    path: Path | None = None
    """The tokenizer.json; for `clip` the merges (.txt or .txt.gz), by default those inside the installed open_clip."""
    context_length: int = 64
    """Ids in a row: longer captions are cut, special tokens kept; shorter ones are padded."""
    pad_id: int | None = None
    """The padding id; by default the file's: the `pad_token` of a `tokenizer_config.json` beside it, its `padding`
    section, `<pad>` or `[PAD]`, whichever is there first. CLIP's is always 0."""
    clean: Literal["lower", "whitespace", "canonicalize", "none"] | None = None
    """How captions are cleaned before, as open_clip's `clean` names it: `lower` (CLIP's), `whitespace`, `canonicalize`
    (SigLIP's: lower case, no punctuation). All of them begin with ftfy's fixes. `none`, for a file, leaves captions to
    the file's own normaliser. By default `lower` for `clip`, `none` for a file."""

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain values, for checkpoints."""
        return {**asdict(self), "path": None if self.path is None else str(self.path)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The configuration that `to_dict` wrote."""
        return cls(**{**values, "path": None if values["path"] is None else Path(values["path"])})


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
    num_patches: Derived[int] = 196
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
    batch_size: Derived[int]
    """Samples of this rank's batch."""
    image_size: Derived[int]
    """Side of a picture in the batch, in pixels; with 0 no picture is decoded, for whoever wants members alone."""
    augment: AugmentConfig | None = None
    """Random augmentation; None is the evaluation transform."""
    captions: tuple[CaptionConfig, ...] = (CaptionConfig(),)
    """One entry a caption slot; () reads no text."""
    mask: MaskConfig | None = None
    """Masked rows; None for none."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    """Captions to ids; not used without captions."""
    seed: Derived[int] = 0
    """Seed of every draw."""
    num_epochs: Derived[int | None] = 1
    """Passes over the data; None for no end."""
    shuffle_window: int = 10_000
    """Samples that are shuffled together, after the shards; 0 keeps the order of the files."""
    last_batch: Derived[Literal["drop", "pad", "keep"]] = "drop"
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
    store: StoreConfig = field(default_factory=StoreConfig)
    """How shards that are no plain local files are read."""
    keep_members: Derived[tuple[str, ...]] = ()
    """Extensions, in lower case, of members that batches carry as they are (`json`, `cls`, `npy`), those of pictures
    included. They count for `max_member_bytes`."""

    @property
    def masking(self) -> MaskConfig | None:
        """How rows are masked; None if none are."""
        return self.mask if self.mask is not None and self.mask.masked_fraction > 0 else None


@dataclass(frozen=True, kw_only=True)
class IndexOptions:
    """Writes an index of shards: how many samples each holds and where they lie, for `data.index` of a loader."""

    shards: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Paths, addresses, brace patterns, globs, or text files that list them, as the loader will name them."""
    out: Path
    """The index file: a path; the loader may read it from an address."""
    check: bool = False
    """Compare the index with the shards instead, and say what differs."""
    threads: int = 0
    """Shards that are read at the same time; 0 for as many as there are cores."""
    store: StoreConfig = field(default_factory=StoreConfig)
    """How shards are read that lie elsewhere: each is fetched whole."""
