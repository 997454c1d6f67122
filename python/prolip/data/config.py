"""Settings of the loader, the tokenizer and `prolip data index`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tyro

from prolip import _core
from prolip.images.config import FitConfig as FitConfig
from prolip.store.typed_tables import DERIVED, OPERATIONAL, RESULTS

Cleaning = Literal["lower", "whitespace", "canonicalize", "none"]


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """The tokenizer, and the number of ids that it returns."""

    kind: Literal["clip", "file"] = "clip"
    """`clip`: the ids of open_clip's SimpleTokenizer. `file`: a Hugging Face tokenizer.json."""
    path: Path | None = field(default=None, metadata=OPERATIONAL)
    """The tokenizer.json; for `clip`, the merges (.txt or .txt.gz), by default CLIP's own."""
    context_length: int = 64
    """Ids per caption; longer captions are cut, keeping special tokens."""
    pad_id: int | None = None
    """The padding id, 0 for `clip`. Default for a file: the first of `pad_token` in a `tokenizer_config.json` beside
    it, its `padding` section, `<pad>`, `[PAD]`."""
    clean: Cleaning | None = None
    """Cleaning of captions, by open_clip's names: `lower` (CLIP), `whitespace` or `canonicalize` (SigLIP), all with
    ftfy. `none`, for a file only, leaves it to the file's normaliser. Default: `lower` for `clip`, `none` for a
    file."""

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for a checkpoint."""
        return {**asdict(self), "path": None if self.path is None else str(self.path)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Undo `to_dict`."""
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
    """Where a sample's caption comes from."""

    key: str = "txt"
    """`txt`, or a dotted path into the sample's JSON. From a list, one text is drawn, uniformly unless weighted. Behind
    a list, a name applies to each element (`sentences.raw`), and a number selects one (`sentences.0.raw`)."""
    weight: float = 1.0
    """Relative probability of this source within its slot."""
    general: tuple[str, ...] = ()
    """Dotted paths to more general captions of the sample; masking draws one uniformly."""
    list_weights: tuple[float, ...] = ()
    """Relative probability of each list element by position, then 0; () for uniform."""
    list_weights_key: str | None = None
    """Dotted path to the elements' weights in the same JSON, one per text of `key`."""


@dataclass(frozen=True, kw_only=True)
class CaptionConfig:
    """Every sample has one caption per slot."""

    sources: tuple[CaptionSource, ...] = (CaptionSource(),)
    """One is drawn per sample, by weight."""


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """Masking of the first `int(B * masked_fraction)` rows of a batch (docs/specification.md, section 7)."""

    masked_fraction: float = 0.125
    """Share of rows with masked captions and images. A full batch has at least one such row."""
    text_mode: Literal["replace", "remove"] = "replace"
    """`replace`: masked tokens become `mask_id`. `remove`: they are removed, but for at least one token."""
    text_mask_prob: float = 0.75
    """Probability that a token is masked. Padding is never masked."""
    mask_id: int = 32000
    """The id that replaces masked tokens; not used by `remove`."""
    patch_draw: Literal["batch", "sample"] = "batch"
    """Draw the kept patches once per batch or per sample."""
    keep_ratio: float = 0.75
    """Share of patches to keep: `int(num_patches * keep_ratio)`."""
    num_patches: Annotated[int, tyro.conf.Suppress] = field(default=196, metadata=DERIVED)
    """Patches per image."""
    general_prob: float = 0.0
    """Probability that the masked text is a more general caption, if the source names any."""


@dataclass(frozen=True, kw_only=True)
class NativeConfig:
    """Images at their native aspect ratio, cut into patches, in batches of a fixed number of patches (NaFlex).

    Each step draws a sequence length. Each of its images gets the grid of patches that fills this length best at its
    aspect ratio, and is padded to it. Images are turned as their orientation tags say.
    """

    patch_size: Annotated[int, tyro.conf.Suppress] = field(default=16, metadata=DERIVED)
    """Side of a patch in pixels."""
    seq_lens: tuple[int, ...] = (128, 256, 576, 784, 1024)
    """Sequence lengths to draw from: the maximum number of patches of an image."""
    seq_len_probs: tuple[float, ...] = ()
    """Relative probability of each sequence length; () for uniform."""
    token_budget: int = 16_384
    """Maximum number of patches per step and rank. In `prolip train` over all processes, and by default that of
    `batch_size` images on average."""
    batch_divisor: int = 8
    """The number of samples per step and rank is a multiple of this; in `prolip train`, over all processes."""

    def steps(self) -> list[tuple[float, int, int]]:
        """Probability, sequence length and samples of each kind of step."""
        samples = _core.native_rows(self)
        return list(zip(self._probs, self.seq_lens, samples, strict=True))

    def budget_of(self, batch_size: int) -> int:
        """Of steps of `batch_size` images on average, but for rounding."""
        return round(batch_size / sum(prob / seq_len for prob, seq_len in zip(self._probs, self.seq_lens, strict=True)))

    @property
    def _probs(self) -> list[float]:
        weights = self.seq_len_probs or (1.0,) * len(self.seq_lens)
        return [weight / sum(weights) for weight in weights]

    @property
    def samples_per_step(self) -> float:
        """Their mean."""
        return sum(prob * samples for prob, _, samples in self.steps())

    def of_one_length(self, seq_len: int, batch_size: int) -> NativeConfig:
        """For batches of one sequence length and size."""
        budget = seq_len * batch_size
        return replace(self, seq_lens=(seq_len,), seq_len_probs=(), token_budget=budget, batch_divisor=1)


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """How to fetch shards that are not plain local files, and when a shard counts as complete."""

    allow_pipe: bool = False
    """Whether "pipe:COMMAND" may run commands."""
    connections: int = 8
    """Number of parallel downloads, in ranges of 8 MiB."""
    read_ahead_bytes: int = 4 * 2**30
    """Disk limit for prefetched shards; allow several."""
    max_shard_bytes: int = 32 * 2**30
    """Maximum size of one shard in bytes, as sent and when unpacked."""
    cache_dir: str | None = None
    """Folder for downloaded shards; by default in the system's temporary folder."""
    cache_bytes: int = 0
    """Disk limit for shards kept in `cache_dir`, shared by all processes that name it; 0 keeps none."""
    retries: int = 10
    """Failures in a row, with less than 256 KiB of new data between them, after which a shard is given up."""
    timeout_s: float = 30.0
    """Seconds without data after which a request fails."""
    min_bytes_per_s: int = 1024
    """Minimum rate over `timeout_s`; a slower request fails."""
    require_archive_end: bool = field(default=True, metadata=RESULTS)
    """Whether a tar archive must end with a block of zeros; one without may have been cut, and counts as damaged. With
    an index, the setting used for indexing counts."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What to read and how: the table `[data]` of a recipe."""

    shards: tuple[str, ...] = field(metadata=OPERATIONAL)
    """Paths, URLs, brace patterns, globs, or lists of them (`.txt` or `@FILE`)."""
    weights: tuple[float, ...] = ()
    """With `mode="resampled"`, relative probabilities of shards, one per pattern; () for uniform."""
    index: str | None = field(default=None, metadata=OPERATIONAL)
    """Index file of the shards, made by `prolip data index`, so that opening reads no shard. A shard that is not in it,
    or has changed since, is an error."""
    selection: str | None = None
    """File of a selection (`prolip.store.selection`): an epoch is its samples, as often as it says. Only their shards
    are opened, and `shards` may be (). A shard that has changed since it was written is an error."""
    mode: Literal["once", "resampled"] = "once"
    """`once`: every sample once per epoch. `resampled`: shards are drawn with replacement, by `weights`."""
    num_samples: int | None = None
    """Samples per epoch over all ranks. Needed if shards are resampled, or remote without an index. Each rank then
    reads shards of its own, and repeats them if they have too few samples."""
    native: NativeConfig | None = None
    """Images at their native aspect ratio; None for square images."""
    augment: AugmentConfig | None = None
    """Random augmentation; None for the evaluation transform."""
    captions: tuple[CaptionConfig, ...] = (CaptionConfig(),)
    """One entry per caption slot; () reads no captions."""
    mask: MaskConfig | None = None
    """Masking of rows; None for no masking."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    """The tokenizer; not used without captions."""
    shuffle_window: int = 10_000
    """Samples to shuffle together, after the shards; 0 keeps the order of the files."""
    num_threads: int = field(default=0, metadata=OPERATIONAL)
    """Loader threads. 0 divides the cores of this process (affinity and cgroup quota) by torchrun's LOCAL_WORLD_SIZE;
    in `prolip train`, each core by the number of processes that are bound to it."""
    prefetch_batches: int = field(default=4, metadata=OPERATIONAL)
    """Batches to prepare ahead."""
    max_bad_fraction: float = 0.01
    """Maximum share of unreadable samples, else DataError. Checked at every batch with a margin of 4 standard
    deviations (none if this is 0), and exactly at the end of an epoch, unless the run resumed within it."""
    max_pixels: int = _core.MAX_PIXELS
    """Maximum number of pixels in an image; larger images are bad samples. The default is Pillow's `MAX_IMAGE_PIXELS`;
    a thread needs up to 0.8 GB for such an image."""
    max_member_bytes: int = 256 * 2**20
    """Maximum size of a sample's members together, in bytes."""
    max_caption_bytes: int = 2**20
    """Maximum size of a caption in bytes."""
    on_missing_shard: Literal["raise", "skip"] = "raise"
    """What to do with a shard that cannot be opened. `raise`: an error when the loader opens, or at the batch that
    needs it. `skip`: a warning; a shard that disappears later counts as bad samples (as one, if its length is
    unknown)."""
    store: StoreConfig = field(default_factory=StoreConfig, metadata=OPERATIONAL)
    """How remote shards are read."""

    @property
    def masking(self) -> MaskConfig | None:
        """`mask`; None if no row is masked."""
        return self.mask if self.mask is not None and self.mask.masked_fraction != 0 else None


@dataclass(frozen=True, kw_only=True)
class LoaderConfig(DataConfig):
    """What to read, and the batches that the caller needs."""

    batch_size: int
    """Samples per batch on this rank. With `native` its token budget decides."""
    image_size: int | tuple[int, int]
    """Height and width of the images in pixels, or their side; with 0 no image is decoded. With `native` only 0 has a
    meaning."""
    fit: FitConfig = field(default_factory=FitConfig)
    """How images are fitted. With `native` or `augment` only the filter has a meaning."""
    seed: int = 0
    """Random seed."""
    num_epochs: int | None = 1
    """None for no end."""
    last_batch: Literal["drop", "pad", "keep"] = "drop"
    """How an epoch ends. `drop` and `pad`, for training: all batches are full, all ranks have equally many, and bad
    samples are replaced; an incomplete last batch is dropped, or padded from the beginning of the rank's part. `keep`,
    for evaluation: the last batch is smaller, bad samples are left out, and ranks may differ by one batch."""
    keep_members: tuple[str, ...] = ()
    """Extensions, in lower case, of raw members to return in batches (`json`, `cls`, `npy`, also images)."""


@dataclass(frozen=True, kw_only=True)
class IndexOptions:
    """Write an index of shards, with the number and positions of their samples, for a loader's `data.index`."""

    shards: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SHARD ...")]
    """Paths, URLs, brace patterns, globs, or text files that list them."""
    out: Path
    """The index file."""
    check: bool = False
    """Compare an existing index with the shards instead, and print the differences."""
    threads: int = 0
    """Shards to read in parallel; 0 for the number of cores."""
    store: StoreConfig = field(default_factory=StoreConfig)
    """How remote shards are read. Each is downloaded whole."""


@dataclass(frozen=True, kw_only=True)
class CombineOptions:
    """Combine selections into one, with each sample at most as often as in one of them."""

    selections: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SELECTION ...", help_behavior_hint="")
    ]
    """Files of `prolip data select`, `dedupe` or `combine`."""
    how: Literal["and", "or", "without"]
    """`and`: samples of all selections; `or`: of any; `without`: of the first, but of no other."""
    out: str
    """Output file, a selection."""
