"""Settings of the loader, the tokenizer and `prolip data index`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import tyro

from prolip import _core

Value = TypeVar("Value")
Derived = Annotated[Value, tyro.conf.Suppress]
"""A field that a training run derives from other settings, so that `prolip train` has no flag for it."""


Cleaning = Literal["lower", "whitespace", "canonicalize", "none"]
"""How captions are cleaned, by open_clip's names."""


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Which tokenizer to use, and how many ids it returns."""

    kind: Literal["clip", "file"] = "clip"
    """`clip`: the ids of open_clip's SimpleTokenizer. `file`: a Hugging Face tokenizer.json."""
    path: Path | None = None
    """The tokenizer.json. For `clip`, the merges (.txt or .txt.gz); by default CLIP's own."""
    context_length: int = 64
    """Ids per caption. Longer captions are cut, keeping special tokens; shorter ones are padded."""
    pad_id: int | None = None
    """The padding id, 0 for `clip`. For a file the default is the first of: `pad_token` in a `tokenizer_config.json`
    beside it, its `padding` section, `<pad>`, `[PAD]`."""
    clean: Cleaning | None = None
    """How captions are cleaned first, by open_clip's names: `lower` (CLIP), `whitespace`, or `canonicalize` (SigLIP:
    lower case, no punctuation). All three fix the text with ftfy. `none`, for a file only, leaves captions to the
    file's own normaliser. Default: `lower` for `clip`, `none` for a file."""

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain values, for a checkpoint."""
        return {**asdict(self), "path": None if self.path is None else str(self.path)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the configuration that `to_dict` wrote."""
        return cls(**{**values, "path": None if values["path"] is None else Path(values["path"])})


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random augmentation of training images. The defaults are those of the published recipes."""

    crop_scale: tuple[float, float] = (0.8, 1.0)
    """Lowest and highest share of the image's area in a crop."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Lowest and highest aspect ratio (width / height) of a crop."""
    jitter: tuple[float, float, float, float] = (0.32, 0.32, 0.32, 0.08)
    """Strength of brightness, contrast, saturation and hue jitter, applied in random order."""
    jitter_prob: float = 0.8
    """Probability of colour jitter."""
    gray_prob: float = 0.2
    """Probability of conversion to grey."""


@dataclass(frozen=True, kw_only=True)
class CaptionSource:
    """One source of captions within a sample."""

    key: str = "txt"
    """`txt`, or a dotted path into the sample's JSON. If it leads to a list, one text is drawn, uniformly unless
    weighted; other values are skipped. Behind a list, a name (with or without `*`) applies to each element
    (`sentences.raw`, `sentences.*.raw`), and a number selects one (`sentences.0.raw`). Empty texts are captions."""
    weight: float = 1.0
    """Relative probability of this source within its slot."""
    general: tuple[str, ...] = ()
    """Dotted paths to more general captions of the same sample. Hierarchical masking draws one uniformly."""
    list_weights: tuple[float, ...] = ()
    """Relative probability of each list element by position; elements after the last weight have 0. () for uniform."""
    list_weights_key: str | None = None
    """Dotted path to the elements' weights in the same JSON (`sentences.score`), one number per text of `key`."""


@dataclass(frozen=True, kw_only=True)
class CaptionConfig:
    """One caption slot. Every sample has one caption per slot."""

    sources: tuple[CaptionSource, ...] = (CaptionSource(),)
    """The sources of captions. One is drawn for each sample, by weight."""


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """How to mask the first `int(B * masked_fraction)` rows of a batch (docs/specification.md, section 7)."""

    masked_fraction: float = 0.125
    """Share of rows with masked captions and images. A full batch has at least one such row; the smaller last batch of
    `last_batch="keep"` may have none."""
    text_mode: Literal["replace", "remove"] = "replace"
    """`replace`: masked tokens become `mask_id`. `remove`: masked tokens are removed and the rest moves left; at least
    one token stays."""
    text_mask_prob: float = 0.75
    """Probability that a token is masked. Padding is never masked; a real token with the padding id (CLIP's `!`) may
    be."""
    mask_id: int = 32000
    """The id that replaces masked tokens; not used by `remove`."""
    patch_draw: Literal["batch", "sample"] = "batch"
    """Draw the kept patches once per batch, for all masked rows, or once per sample."""
    keep_ratio: float = 0.75
    """Share of patches to keep: `int(num_patches * keep_ratio)`."""
    num_patches: Derived[int] = 196
    """Patches per image."""
    general_prob: float = 0.0
    """Probability that the masked text is a more general caption, if the drawn source names any."""


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """How to fetch shards that are not plain local files, and when a shard counts as complete."""

    allow_pipe: bool = False
    """Whether "pipe:COMMAND" may run commands."""
    connections: int = 8
    """Number of parallel downloads, in ranges of 8 MiB."""
    read_ahead_bytes: int = 4 * 2**30
    """Disk limit for prefetched shards; allow several. Shards that a batch waits for may exceed it."""
    max_shard_bytes: int = 32 * 2**30
    """Largest size of one shard in bytes, as sent and when unpacked, in case a server never stops sending."""
    cache_dir: str | None = None
    """Folder for downloaded shards; None for one in the system's temporary folder."""
    cache_bytes: int = 0
    """Disk limit for shards that stay in `cache_dir` after use, shared by all processes that name it; 0 keeps none."""
    retries: int = 10
    """Failures in a row after which a shard is given up. The count starts again after 256 KiB of new data."""
    timeout_s: float = 30.0
    """Seconds without data after which a request fails."""
    min_bytes_per_s: int = 1024
    """Lowest rate, on average over `timeout_s`. A slower request fails."""
    require_archive_end: bool = True
    """Whether a tar archive, local ones too, must end with a block of zeros, as tar writes it. Without one the archive
    may have been cut between two samples, so it counts as damaged there. Set False for writers that don't end their
    archives. With an index, the setting used for indexing counts."""


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """All settings of a loader except its rank."""

    shards: tuple[str, ...]
    """Paths, URLs, brace patterns, globs, or text files that list them (`.txt` or `@FILE`)."""
    weights: tuple[float, ...] = ()
    """With `mode="resampled"`, the relative probability of a shard, one weight per pattern; () for uniform."""
    index: str | None = None
    """Index file of the shards, made by `prolip data index`, so that opening reads no shard. A shard that is missing in
    the index, or has changed since, is an error."""
    mode: Literal["once", "resampled"] = "once"
    """`once`: every sample once per epoch. `resampled`: shards are drawn with replacement, by `weights`."""
    num_samples: int | None = None
    """Samples per epoch over all ranks. Needed if shards are resampled or if their length is unknown, as for remote
    shards without an index. Each rank then reads shards of its own, and repeats them if they have too few samples. With
    `last_batch="keep"` an epoch always ends with the shards."""
    batch_size: Derived[int]
    """Samples per batch on this rank."""
    image_size: Derived[int]
    """Side of the images in a batch, in pixels. With 0 no image is decoded, to read raw members only."""
    augment: AugmentConfig | None = None
    """Random augmentation; None for the evaluation transform."""
    captions: tuple[CaptionConfig, ...] = (CaptionConfig(),)
    """One entry per caption slot; () reads no captions."""
    mask: MaskConfig | None = None
    """Masking of rows; None for no masking."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    """The tokenizer; not used without captions."""
    seed: Derived[int] = 0
    """Random seed."""
    num_epochs: Derived[int | None] = 1
    """Number of epochs; None to go on without end."""
    shuffle_window: int = 10_000
    """Samples to shuffle together, after the shards are shuffled; 0 keeps the order of the files."""
    last_batch: Derived[Literal["drop", "pad", "keep"]] = "drop"
    """How an epoch ends. Each rank reads one contiguous part of the epoch. `drop` and `pad`, for training: all batches
    are full, all ranks have equally many, and bad samples are replaced; a last batch that is not full is dropped, or
    padded from the beginning of the rank's part. `keep`, for evaluation: the last batch is smaller, and bad samples are
    left out. Ranks may then differ by one batch, so a collective operation per batch would hang."""
    num_threads: int = 0
    """Loader threads. 0 divides the cores of this process (its affinity and cgroup quota) by torchrun's
    LOCAL_WORLD_SIZE; in `prolip train`, each core by the number of processes that are bound to it."""
    prefetch_batches: int = 4
    """Batches to prepare ahead."""
    max_bad_fraction: float = 0.01
    """Largest share of unreadable samples; above it the loader raises DataError. Checked at every batch with a margin
    of 4 standard deviations (no margin if this is 0), and exactly at the end of an epoch, unless the run resumed
    within it. The same run always fails at the same batch."""
    max_pixels: int = _core.MAX_PIXELS
    """Largest number of pixels in an image; larger images are bad samples. The default is Pillow's
    `MAX_IMAGE_PIXELS`, beyond which Pillow warns of a decompression bomb. A thread needs 0.3 GB for such a PNG, 0.4 GB
    for a JPEG, 0.8 GB for a progressive one without chroma subsampling."""
    max_member_bytes: int = _core.MAX_MEMBER_BYTES
    """Largest size of a sample's members together, in bytes; larger samples are bad."""
    max_caption_bytes: int = _core.MAX_CAPTION_BYTES
    """Largest size of a caption in bytes; samples with longer captions are bad."""
    on_missing_shard: Literal["raise", "skip"] = "raise"
    """What to do with a shard that cannot be opened. `raise`: raise an error that names it, when the loader opens or at
    the batch that needs it. `skip`: log a warning. A shard that disappears later counts as bad samples (as one, if its
    length is unknown)."""
    store: StoreConfig = field(default_factory=StoreConfig)
    """How remote shards are read."""
    keep_members: Derived[tuple[str, ...]] = ()
    """Extensions, in lower case, of raw members to return in batches (`json`, `cls`, `npy`, also images). They count
    towards `max_member_bytes`."""

    @property
    def masking(self) -> MaskConfig | None:
        """The settings of masking; None if no row is masked."""
        return self.mask if self.mask is not None and self.mask.masked_fraction != 0 else None


@dataclass(frozen=True, kw_only=True)
class IndexOptions:
    """Write an index of shards, with the number and positions of their samples, for a loader's `data.index`."""

    shards: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SHARD ...")]
    """Paths, URLs, brace patterns, globs, or text files that list them, named as for the loader."""
    out: Path
    """The index file to write. The loader may read it from a URL."""
    check: bool = False
    """Compare an existing index with the shards instead, and print the differences."""
    threads: int = 0
    """Shards to read in parallel; 0 for as many as this process has cores."""
    store: StoreConfig = field(default_factory=StoreConfig)
    """How remote shards are read. Each is downloaded whole."""
