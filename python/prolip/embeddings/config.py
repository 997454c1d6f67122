"""Settings of embedding, searching, and choosing samples."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from prolip.data.config import StoreConfig
from prolip.metrics.config import Score
from prolip.models.config import Device, Precision

Kind = Literal["image", "text"]
Stored = Literal["float32", "float16"]
By = Literal["image", "text", "inclusion", "csd", "posterior"]


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Where the parts of a command's work run.

    A command nests it without a prefix: `engine: Annotated[EngineOptions, tyro.conf.arg(name="")]`.
    """

    on: Annotated[str | None, tyro.conf.arg(metavar="ray|ray://HOST:PORT")] = None
    """Run on Ray (`pip install 'prolip[ray]'`): `ray` uses the cluster that this machine belongs to, or starts Ray on
    it; `ray://HOST:PORT` uses the cluster with this address. By default, work runs in this process."""
    workers: int = 0
    """Maximum number of Ray's actors; 0 for as many as the cluster has resources for, or can get."""
    num_cpus: float = 1
    """Cores per actor."""
    num_gpus: float = 0
    """GPUs per actor."""


@dataclass(frozen=True, kw_only=True)
class EmbedOptions:
    """Embed images and captions into Parquet files for `prolip search` and `prolip data select`.

    Rerun the command to resume after the last finished part.
    """

    checkpoint: str
    """A released model, a run, a checkpoint, a folder, hf-hub:OWNER/NAME or open_clip:NAME/TAG (without variances)."""
    out: str
    """Output folder, here or at s3://, gs:// or az://: the parts and manifest.json."""
    shards: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SHARD ...")] = ()
    """Shards (paths, addresses or patterns); one part each."""
    selection: str | None = None
    """A selection (`prolip data select`): also embed its samples; one part for each of its shards."""
    images: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FOLDER ...")] = ()
    """Folders of images."""
    lines: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE ...")] = ()
    """Text files with one caption per line."""
    what: Literal["image", "text", "both"] = "image"
    """What to embed from shards and folders. The caption of an image in a folder is the .txt beside it."""
    caption_key: str = "txt"
    """Where a shard's captions are: `txt`, or a dotted path into a sample's json (from a list, one fixed caption)."""
    tokenizer: str | None = None
    """`clip`, or a tokenizer.json; by default the model's own."""
    dtype: Stored = "float16"
    """dtype of stored means and log variances; total variances are always float32."""
    log_var: bool = False
    """Store the log variances, which the inclusion of an image in its caption needs. The parts are twice as large."""
    rows_per_part: int = 10_000
    """Images of a folder, or lines of a file, per part."""
    batch_size: int = 128
    """Images or captions per forward pass."""
    precision: Precision = "fp32"
    """Precision of the towers; bf16 and fp16 use autocast."""
    device: Device = "auto"
    """Where the model runs."""
    threads: int = 0
    """The loader's threads; 0 for this process's share of the cores."""
    store: StoreConfig = field(default_factory=StoreConfig)
    """How remote shards are read."""
    engine: Annotated[EngineOptions, tyro.conf.arg(name="")] = field(default_factory=EngineOptions)


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Bring embeddings that another program computed in as a folder, as `prolip embed` writes it.

    Vectors are floats [N, D]: .npy files, .npz files and Parquet files with an array or column `image` or `text`, or
    folders of .npy files, such as clip-retrieval's. Rows are normalised.
    """

    image: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE|FOLDER ...")] = ()
    """Vectors of images."""
    text: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE|FOLDER ...")] = ()
    """Vectors of texts; beside images, row by row their captions."""
    out: str
    """Output folder, new, here or at s3://, gs:// or az://."""
    metadata: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE|FOLDER ...")] = ()
    """Parquet files with a row per vector: names, captions and labels; or .txt files with a name in each line."""
    key: str | None = None
    """Column that names the rows, such as classes; by default `key`, `image_path` or `url`, else their numbers."""
    caption: str = "caption"
    """Column of captions, if it is there."""
    label: str = "label"
    """Column of labels, if it is there: names of classes."""
    checkpoint: str | None = None
    """The model that made the vectors, if it is known. An adapted model gives them its variances."""
    logit_scale: float = 100.0
    """Scale of the model's similarity, if it is not known. 100 is that of most CLIPs."""
    dtype: Stored = "float16"
    """dtype of stored means."""
    rows_per_part: int = 10_000
    """Rows per part."""


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Find the embedded images or captions nearest to text and image queries; the search is exact.

    Prints a table of results: score, dot product of the means, uncertainty (total variance), inclusion in the query
    (positive if the query is more general; only with stored log variances), and for local shards file name and caption.
    """

    embeddings: str
    """Folder that `prolip embed` wrote, here or at s3://, gs:// or az://."""
    text: tuple[str, ...] = ()
    """Text queries."""
    image: tuple[Path, ...] = ()
    """Image queries: files."""
    vector: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE ...")] = ()
    """Vector queries: .npy files [D] or [N, D]. These and rows need no model."""
    row: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY ...")] = ()
    """Row queries: keys of embedded items; finds the items nearest to them."""
    queries: Path | None = None
    """File of more text queries, one per line. Then one table has a line for each query."""
    find: Kind = "image"
    """What to search: images or captions."""
    score: Score | None = None
    """`csd`, the sampled distance, or `mean`, the means alone. The default is that of
    the calibration for a promise, else `csd`."""
    k: int = 10
    """Results per query, at most."""
    contains_right: float | None = None
    """Show only as many images as contain a right one with this probability, such as 0.9, if there is one. Needs a
    calibrated search (prolip calibrate search), as the next option."""
    max_wrong: float | None = None
    """Say that nothing matches, unless something would be shown with at most this probability, such as 0.1, if no image
    is right."""
    calibration: Path | None = None
    """The file of `prolip calibrate search`; by default search.safetensors in the model's folder."""
    json: bool = False
    """Print JSON instead of the table."""
    sheet: Path | None = None
    """HTML file that shows the results with images and captions."""
    checkpoint: str | None = None
    """The model; by default the one that made the embeddings."""
    tokenizer: str | None = None
    """`clip`, or a tokenizer.json; by default the one of the embeddings, or the model's own."""
    device: Device = "auto"
    """Where the model runs. The search runs on the CPU."""
    store: StoreConfig = field(default_factory=StoreConfig)
    """How remote shards are read, for captions and the sheet."""


@dataclass(frozen=True, kw_only=True)
class SelectOptions:
    """Choose the embedded samples with the best scores, and print the first and the last samples.

    The result is exact, and the same for any number of workers. Of equal scores, those that come first in the data are
    chosen. Samples that could not be embedded are never chosen.
    """

    embeddings: str
    """Folder that `prolip embed` wrote, here or at s3://, gs:// or az://."""
    by: By = "image"
    """`image`, `text`: uncertainty (total variance), smallest first. `inclusion`: how far the image lies inside its
    caption (H, summed over dimensions), largest first. `csd`: sampled distance of image and caption, smallest first.
    `posterior`: log probability of the caption given the image, beside those of 4,096 other pairs, and of the image
    given the caption; largest first. The last three need embeddings made with `--what both`, inclusion also
    `--log_var`. `csd` and `posterior` need no variances."""
    out: str
    """Output file, a selection, here or at s3://, gs:// or az://."""
    keep_share: float = 1.0
    """Keep this share of the samples, the first; rounded down."""
    keep_count: int | None = None
    """Keep at most this many samples, the first."""
    min_score: float = -math.inf
    """Minimum score. Samples below it are left out before the others are counted."""
    max_score: float = math.inf
    """Maximum score, likewise."""
    least: bool = False
    """Keep the last samples instead of the first: the least certain ones."""
    show: int = 5
    """Number of first and of last samples to print and to show on the sheet."""
    sheet: Path | None = None
    """HTML file that shows these samples with images and captions."""
    engine: Annotated[EngineOptions, tyro.conf.arg(name="")] = field(default_factory=EngineOptions)
    """Where the parts are scored."""
    threads: int = 0
    """Parts to score in parallel, without Ray; 0 for the number of cores."""
    store: StoreConfig = field(default_factory=StoreConfig)
    """How remote shards are read, for captions and the sheet."""


@dataclass(frozen=True, kw_only=True)
class CopyOptions:
    """Copy shards, or folders of images, with only the samples of a selection, in order and byte for byte.

    Each chosen sample is copied once. Existing copies are skipped. The caption beside an image is copied with it.
    """

    selection: str
    """File of `prolip data select`, `dedupe` or `combine`."""
    out: Path
    """Output folder. Shards from several folders keep their folders' names, images their paths below the folder."""
    shards: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SHARD ...")] = ()
    """Shards and folders to copy, named as when they were embedded; by default all in the selection."""
    store: StoreConfig = field(default_factory=StoreConfig)
    """How remote shards are read."""


@dataclass(frozen=True, kw_only=True)
class DedupeOptions:
    """Choose one of each group of near-duplicates, the most certain, and write a selection of what stays.

    k-means divides the embeddings into clusters, and embeddings of one cluster are compared. A sample goes if a more
    certain one that stays is similar to it. Prints how many go, and the sizes of the groups.
    """

    embeddings: str
    """Folder that `prolip embed` wrote."""
    by: Kind = "image"
    """Compare images or captions. The more certain one has the smaller total variance; without variances, or if they
    are equal, the first in the order of the data stays."""
    threshold: float | None = None
    """Minimum cosine of near-duplicates. By default they are nearer to each other than a quarter of the median distance
    (1 - cosine) of a sample to its nearest neighbour, since models differ in how near they put different images."""
    within: str | None = None
    """A selection: compare and keep only its samples."""
    out: str
    """Output file: the selection of what stays."""
    sheet: Path | None = None
    """HTML file that shows the largest groups with images and captions."""
    clusters: int = 0
    """Number of clusters; 0 for one per 10,000 samples, and above 10^8 samples their square root. More clusters are
    faster, and miss more duplicates."""
    engine: Annotated[EngineOptions, tyro.conf.arg(name="")] = field(default_factory=EngineOptions)
    scratch: Path = Path()
    """Folder for temporary files as large as the embeddings in float16. All machines must share it."""
    store: StoreConfig = field(default_factory=StoreConfig)
    """How remote shards are read, for the sheet."""
