"""Settings of the suites."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from prolip.eval.config import BprwConfig, TraversalConfig
from prolip.models.config import Precision


@dataclass(frozen=True, kw_only=True)
class SuiteOptions:
    """What every suite is told."""

    checkpoint: Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
    """A run's folder, a checkpoint, a folder in the hub's layout, hf-hub:OWNER/NAME, or as a baseline
    open_clip:NAME/TAG. Given several times, models stand side by side and are compared with the first."""
    tokenizer: str | None = None
    """`clip`, or a tokenizer.json, for models that do not say which they were trained with."""
    out: Path | None = None
    """Folder of results.json, results.md and results.html; by default evals/SUITE. Finished tasks are kept below it
    and not run again."""
    batch_size: int = 128
    """Pictures a forward pass."""
    precision: Precision = "fp32"
    """Arithmetic of the towers; bf16 and fp16 are autocast, and several times as fast on a GPU."""
    num_resamples: int = 1000
    """Resamples behind an interval; 0 gives none."""
    seed: int = 0
    """Of the resamples."""


@dataclass(frozen=True, kw_only=True)
class DatacompOptions(SuiteOptions):
    """Evaluates models on DataComp's 38 tasks and two fairness extras, or on tasks of your own, each by its metric.

    What is not there, or damaged, is named, and the rest runs. A task that was finished for a model and its data is
    not run again.
    """

    data: Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
    """Where the data sets are: a folder of folders such as wds_imagenet1k_test, hf://datasets/OWNER, or an http(s)
    address. May be given several times."""
    tasks: tuple[str, ...] = ()
    """Keys of the tasks, such as imagenet1k or vtab/dtd; by default all."""
    table: Path | None = None
    """Table of the tasks, by default DataComp's. One of your own has the same columns, divided by tabs: key, name,
    folders, items, metric, group_column, averages. `all` and any other words under averages name averages."""


SETS = {
    "imagenet1k": "ImageNet",
    "imagenetv2": "ImageNet-V2",
    "imagenet-a": "ImageNet-A",
    "imagenet-r": "ImageNet-R",
    "imagenet_sketch": "ImageNet-Sketch",
}
"""Sets by name, and what tables of results call them; a set of another name is called by it."""


FEW_SHOT = BprwConfig(alpha=2.0, num_neighbors=5, num_draws=20)
"""The published setting for a few labelled pictures of each class."""


@dataclass(frozen=True, kw_only=True)
class ImagenetOptions(SuiteOptions):
    """Evaluates prompts on ImageNet, V2, A, R and Sketch: the even ensemble, two filters, and re-weighting (BPRW).

    Re-weighting takes the set's own pictures without their labels (nearest), or a few labelled ones of ImageNet
    (few-shot), which are then not scored. Other sets of the same layout can be named in place of these.
    """

    data: Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
    """Where the data sets are: a folder of folders such as wds_imagenet1k_test, hf://datasets/OWNER, or an http(s)
    address. May be given several times."""
    sets: tuple[str, ...] = tuple(SETS)
    """Which of them; NAME is read from a folder wds_NAME_test."""
    voters: str = "imagenet1k"
    """The set whose labelled pictures re-weight prompts (few-shot); its classes include those of the sets."""
    templates: Literal["folder", "all", "simple"] = "folder"
    """The data set's own list, CLIP's 80, or the seven that do most of the work."""
    nearest: BprwConfig = field(default_factory=BprwConfig)
    """Re-weighting by the pictures that are nearest to a class."""
    few_shot: BprwConfig = FEW_SHOT
    """Re-weighting by labelled pictures, `num_neighbors` of each class."""


@dataclass(frozen=True, kw_only=True)
class RetrievalOptions(SuiteOptions):
    """Evaluates retrieval both ways, by the means alone and by sampled distance.

    Where `image_id_key` and `caption_ids_key` lead to COCO's ids, COCO 1K and 5K, CxC and ECCV Caption are measured too
    (needs prolip[eval]).
    """

    data: Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
    """A folder of the published layout (wds_flickr30k_test), or shards: a path, an address or a pattern. May be given
    several times."""
    caption_key: str = "txt"
    """Where a picture's captions are: `txt`, a caption a line, or a dotted path into its json (sentences.raw)."""
    image_id_key: str | None = None
    """Dotted path of COCO's id of a picture (cocoid)."""
    caption_ids_key: str | None = None
    """Dotted path of COCO's ids of its captions (sentids)."""

    def __post_init__(self) -> None:
        if (self.image_id_key is None) != (self.caption_ids_key is None):
            raise ValueError("image_id_key and caption_ids_key come together or not at all")
        if self.image_id_key is not None and len(set(self.data)) > 1:
            raise ValueError(f"image_id_key goes with one data set, COCO's test set: data has {len(set(self.data))}")


@dataclass(frozen=True, kw_only=True)
class HierarcapsOptions(SuiteOptions):
    """Walks from every picture's nearest caption to the root, as HierarCaps is measured, with every kind of root."""

    data: Path
    """Folder with HierarCaps' table (columns `captions`, its levels joined by " => ", and `image_url`) and the
    pictures, named as the addresses end, in it or in a zip file."""
    walk: TraversalConfig = field(default_factory=TraversalConfig)
    """How finely the way is cut; the root and the score of inclusion are varied."""


@dataclass(frozen=True, kw_only=True)
class HierarimgsOptions(SuiteOptions):
    """Walks from every caption's nearest picture to the root through a hierarchy of pictures: the sides exchanged."""

    data: Path
    """Folder with a table (columns `caption`, and `images`, names of pictures from general to specific joined by
    " => ") and the pictures, in it or in a zip file."""
    walk: TraversalConfig = field(default_factory=TraversalConfig)
    """How finely the way is cut; the root and the score of inclusion are varied."""


@dataclass(frozen=True, kw_only=True)
class UncertaintyOptions(SuiteOptions):
    """Measures what uncertainty goes with: are the uncertain pictures the ones that are answered wrongly, are long
    captions certain, and do hiding, blurring or shortening make pictures and captions more uncertain?

    Accuracy needs labels and class names (the published layout); captions need `caption_key`.
    """

    data: Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
    """A folder of the published layout (wds_imagenet1k_test), or shards: a path, an address or a pattern. May be given
    several times."""
    caption_key: str | None = None
    """Where a picture's captions are: `txt`, a caption a line, or a dotted path into its json; None for no captions."""
    num_bins: int = 10
    """Bins of accuracy by uncertainty."""
    keep_ratio: float = 0.25
    """Share of the patches that a picture keeps when the others are hidden."""
    blur: float = 0.04
    """Standard deviation of the blur, as a share of the picture's side."""
    show: int = 5
    """Most and least certain pictures that are named."""

    def __post_init__(self) -> None:
        for name, right, rule in (
            ("num_bins", self.num_bins >= 2, "at least 2"),
            ("keep_ratio", 0 < self.keep_ratio < 1, "between 0 and 1"),
            ("blur", self.blur > 0, "positive"),
            ("show", self.show >= 0, "not negative"),
        ):
            if not right:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be {rule}")


@dataclass(frozen=True, kw_only=True)
class ReweightOptions:
    """Weighs every class's prompts by how well they fit the class's images; no label is needed.

    Writes prompt_weights.safetensors (weights, classifier, variances, rounds) and prompt_weights.svg, and prints each
    class's best and worst prompts. With `class_key` it prints the accuracy too, beside even weights and two filters.
    """

    checkpoint: str
    """A run's folder, a checkpoint, a folder in the hub's layout, or hf-hub:organisation/name."""
    images: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SHARD")]
    """Shards of images: paths or patterns."""
    classnames: str | None = None
    """`imagenet`, or a text file with a name a line; by default the distinct values of `class_key`."""
    class_key: str | None = None
    """Field of an image's json that holds its class: a name, or its place in `classnames`."""
    templates: str = "imagenet"
    """`imagenet` (CLIP's 80), `simple` (seven of them), `emoji`, or a text file with a template a line, `{}` in it."""
    vote: Literal["nearest", "labelled"] = "nearest"
    """Who votes for a class: the images nearest to it, or images with its label, which are then not scored."""
    bprw: tyro.conf.OmitArgPrefixes[BprwConfig] = field(default_factory=BprwConfig)
    """The rule."""
    tokenizer: str | None = None
    """`clip`, or a tokenizer.json; by default the one that the run was trained with."""
    out: Path = Path("bprw")
    """Folder of the files."""
    show: int = 3
    """Best and as many worst prompts that are printed a class, at most half of all each."""
    batch_size: int = 128
    """Images a forward pass."""
