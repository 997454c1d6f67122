"""Settings of embedding, searching, ranking and filtering."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from prolip.data import (
    StoreConfig,
)
from prolip.eval.config import Score

Kind = Literal["image", "text"]


Format = Literal["parquet", "safetensors"]


Stored = Literal["float32", "float16"]


@dataclass(frozen=True, kw_only=True)
class EmbedOptions:
    """Embeds pictures and captions into parts that `prolip search` and `prolip data rank` read.

    Under torchrun every process takes its share of the parts. Parts that are there already are not made again.
    """

    checkpoint: str
    """A run's folder, a checkpoint, a folder in the hub's layout, or hf-hub:organisation/name."""
    out: Path
    """Folder of the parts and of manifest.json."""
    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SHARD|FOLDER")] = ()
    """Shards (paths, addresses, patterns; one part each) and folders of pictures."""
    lines: tuple[Path, ...] = ()
    """Text files, a caption a line."""
    what: Literal["image", "text", "both"] = "image"
    """What of `data` is embedded. The captions of a folder are the .txt beside each picture."""
    caption_key: str = "txt"
    """`txt`, or a dotted path into a sample's json: where a shard's captions are. Of a list one is drawn, always the
    same."""
    tokenizer: str | None = None
    """`clip`, or a tokenizer.json; by default the one that the model was trained with, where that is known."""
    format: Format = "parquet"
    """Of the parts; `safetensors` needs no pyarrow."""
    dtype: Stored = "float32"
    """Of means and log variances in the parts; total variances are always float32."""
    rows_per_part: int = 10_000
    """Pictures of a folder, or lines, in a part."""
    batch_size: int = 128
    """Pictures or captions a forward pass."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the towers; bf16 is autocast."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs."""
    num_threads: int = 0
    """The loader's threads; 0 for this process's share of the cores."""
    store: StoreConfig = field(default_factory=StoreConfig)
    """How shards are read that lie elsewhere."""


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Finds the embedded pictures or captions that are nearest to texts and pictures, exactly.

    Prints a table of the answers: their score, the product of the means, the answer's uncertainty (total variance), and
    how far it lies in the query (inclusion, positive where the query is the more general of the two); captions with
    their words.
    """

    embeddings: Path
    """Folder that `prolip embed` wrote."""
    text: tuple[str, ...] = ()
    """Queries in words."""
    image: tuple[Path, ...] = ()
    """Queries that are pictures: files."""
    find: Kind = "image"
    """What is searched: the pictures or the captions."""
    score: Score = "csd"
    """What is nearest: by the sampled distance, or by the means alone."""
    k: int = 10
    """Answers a query."""
    json: Path | None = None
    """File to write the answers to."""
    sheet: Path | None = None
    """HTML file to write the answers to with their pictures and captions, fetched from where they were embedded."""
    checkpoint: str | None = None
    """The model; by default the one that the parts were embedded with, as it was named then."""
    tokenizer: str | None = None
    """`clip`, or a tokenizer.json; by default as the parts were embedded, or the run's own."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; the search itself runs on the CPU."""
    store: StoreConfig = field(default_factory=StoreConfig)
    """How shards are read that lie elsewhere, for the sheet."""


By = Literal["image", "caption", "inclusion", "csd"]


@dataclass(frozen=True, kw_only=True)
class RankOptions:
    """Ranks embedded samples and writes a table with a row a sample: key, source, score, rank.

    The rows stand in the order of the data; rank 1 is the most certain, or the best fitting sample. Equal scores keep
    the order of the data.
    """

    embeddings: Path
    """Folder that `prolip embed` wrote."""
    by: By = "image"
    """`image`, `caption`: its uncertainty (total variance), the smallest first. `inclusion`: how far the picture lies
    in its caption (H, summed over dimensions), the largest first. `csd`: the sampled distance of picture and caption,
    the smallest first. The last two need embeddings of `--what both`."""
    out: Path
    """The table: a .parquet or a .csv file."""
    show: int = 5
    """First and last samples that are printed and put on the sheet."""
    sheet: Path | None = None
    """HTML file that shows them with their pictures and captions."""
    store: StoreConfig = field(default_factory=StoreConfig)
    """How shards are read that lie elsewhere, for the sheet."""


@dataclass(frozen=True, kw_only=True)
class FilterOptions:
    """Copies shards with only those samples that a ranking keeps, in their order, member by member as they are.

    A sample is kept that meets every rule given. A shard that was copied already is not copied again; one without a
    sample to keep is left out.
    """

    ranking: Path
    """The table that `prolip data rank` wrote. Rows are found by shard and key, so that shards may share keys."""
    out: Path
    """Folder of the copies. Shards of several folders keep their folders' names."""
    shards: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SHARD")] = ()
    """Shards to copy, as they were named when they were embedded; by default all of the ranking."""
    keep_count: int | None = None
    """So many samples of the whole ranking are kept: the first."""
    keep_share: float | None = None
    """This share of the whole ranking is kept, the first; rounded down."""
    min_score: float | None = None
    """Samples with a smaller score are left out."""
    max_score: float | None = None
    """Samples with a larger score are left out."""
    store: StoreConfig = field(default_factory=StoreConfig)
    """How shards are fetched that lie elsewhere."""
