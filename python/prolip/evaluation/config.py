"""Settings of the suites."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from prolip.calibration.config import CALIBRATION_FILE, SEARCH_FILE, Prior, Score
from prolip.data.config import StoreConfig
from prolip.errors import UserError, check, check_at_least, check_seed
from prolip.metrics.config import BprwConfig, FilterConfig, Score as Ranking, TraversalConfig
from prolip.models.config import Device, Precision


@dataclass(frozen=True, kw_only=True)
class SuiteOptions:
    """Options of every suite."""

    checkpoint: tuple[str, ...]
    """A released model, a run, a checkpoint, a folder, hf-hub:OWNER/NAME or open_clip:NAME/TAG. Others are compared
    with the first."""
    tokenizer: str | None = None
    """`clip`, or a tokenizer.json; by default the model's own. Needed for models that name none."""
    out: Path | None = None
    """Folder of results.json, results.md and results.html; by default evals/SUITE. Finished tasks in it do not run
    again."""
    batch_size: int = 128
    """Images per forward pass."""
    precision: Precision = "fp32"
    """Precision of the towers. bf16 and fp16 use autocast, several times as fast on a GPU."""
    device: Device = "auto"
    """Where the model runs."""
    num_resamples: int = 1000
    """Bootstrap resamples per interval; 0 for no intervals."""
    seed: int = 0
    """Seed of the resamples."""

    def folder(self, suite: str) -> Path:
        """Of a suite's results."""
        return self.out or Path("evals") / suite


@dataclass(frozen=True, kw_only=True)
class ShardSuiteOptions(SuiteOptions):
    """Options of suites whose data are shards."""

    selection: str | None = None
    """A selection (`prolip data select`) of the data's samples; the others are not evaluated."""
    store: StoreConfig = field(default_factory=StoreConfig)
    """How remote shards are read."""


@dataclass(frozen=True, kw_only=True)
class ClassSuiteOptions(ShardSuiteOptions):
    """Options of suites whose data are labelled images."""

    data: tuple[str, ...]
    """Labelled images: folders with one folder of images per class, or of the published layout (wds_NAME_test), or
    addresses of these."""
    classnames: Path | None = None
    """File of class names, one per line, in the order of the sorted class folders, or `imagenet`; by default the data
    set's own, or the folders' names, with spaces for _ and -."""


@dataclass(frozen=True, kw_only=True)
class DatacompOptions(ShardSuiteOptions):
    """Evaluate models on DataComp's 38 tasks and two fairness extras, or on your own tasks, each by its own metric.

    Missing or damaged data sets are reported, and the others run.
    """

    data: tuple[str, ...]
    """Folders of folders such as wds_imagenet1k_test, hf://datasets/OWNER, or http(s) addresses."""
    tasks: tuple[str, ...] = ()
    """Keys of the tasks, such as imagenet1k or vtab/dtd; by default all."""
    table: Path | None = None
    """Table of the tasks, separated by tabs, with the columns key, name, folders, items, metric, group_column,
    averages; by default DataComp's."""


@dataclass(frozen=True, kw_only=True)
class NearestConfig(BprwConfig):
    """Weights of prompts by images without labels; the defaults are the published ones."""

    section = "bprw."


@dataclass(frozen=True, kw_only=True)
class FewShotConfig(BprwConfig):
    """Weights of prompts by a few labelled images per class; the defaults are the published ones."""

    section = "few_shot."
    alpha: float = 2.0
    num_neighbors: int = 5
    num_draws: int = 20


@dataclass(frozen=True, kw_only=True)
class ZeroShotOptions(ClassSuiteOptions):
    """Classify your own images zero-shot: accuracy, by means and with class variances, recall of each class, and the
    most frequent confusions. The page shows images.
    """

    templates: tuple[str, ...] = ()
    """Prompts with {} for the class name, `imagenet` for CLIP's 80, or `imagenet_simple` for its seven; by default the
    data set's own, or "{}" and "a photo of a {}."."""
    show: int = 12
    """Number of the most confident wrong images, and of the most uncertain ones, to show on the page."""
    prompt_weights: tuple[Literal["filters", "bprw", "few_shot"], ...] = ()
    """Weights of prompts to compare with even ones. `filters`: two filters by variance, and those of `filters`. `bprw`:
    by the images nearest to a class. `few_shot`: by labelled images, `few_shot.num_neighbors` per class."""
    voters: str | None = None
    """Labelled images for `few_shot`, named as for `data`; by default the first of each class, which are left out of
    one of both accuracies."""
    filters: FilterConfig = field(default_factory=FilterConfig)
    """Filters besides the two."""
    bprw: BprwConfig = field(default_factory=NearestConfig)
    """How the nearest images weight prompts."""
    few_shot: BprwConfig = field(default_factory=FewShotConfig)
    """How labelled images weight prompts."""

    def __post_init__(self) -> None:
        check_at_least(0, show=self.show)


@dataclass(frozen=True, kw_only=True)
class RetrievalOptions(ShardSuiteOptions):
    """Evaluate retrieval in both directions, by means alone and by sampled distance, and what a search for images may
    promise: results that contain a right image, and nothing if there is none.

    The promises are those of `prolip calibrate search`, or else each half of the captions is calibrated by the other.
    With `image_id_key` and `caption_ids_key` for COCO's ids, also COCO 1K and 5K, CxC and ECCV Caption (needs
    prolip[eval]).
    """

    data: tuple[str, ...]
    """A folder of the published layout (wds_flickr30k_test) or with a table and images as on the hub, shards (a path,
    an address or a pattern), or for `cls` a folder with one folder of images per class. May be several."""
    caption_key: str = "txt"
    """Where an image's captions are: `txt` (one per line), a dotted path into its json (sentences.raw), or `cls`, the
    name of its class, for what a search may promise alone."""
    image_id_key: str | None = None
    """Dotted path of COCO's id of an image (cocoid)."""
    caption_ids_key: str | None = None
    """Dotted path of COCO's ids of the image's captions (sentids)."""
    calibration: Path | None = None
    """The file that `prolip calibrate search` wrote; by default the model's own."""
    contains_right: float = 0.9
    """Probability that results contain a right image if there is one."""
    max_wrong: float = 0.1
    """Maximum share of captions without a right image for which something is shown."""
    absent_share: float = 0.5
    """Share of captions whose right images are taken out, for the risk-coverage curve."""

    def __post_init__(self) -> None:
        for name in ("contains_right", "max_wrong"):
            check(0 < getattr(self, name) < 1, name, "must be between 0 and 1", getattr(self, name))
        check(0 <= self.absent_share <= 1, "absent_share", "must be from 0 to 1", self.absent_share)
        if (self.image_id_key is None) != (self.caption_ids_key is None):
            raise UserError("image_id_key", "must be given together with caption_ids_key")
        if self.image_id_key is not None and len(self.data) > 1:
            raise UserError("image_id_key", "data must be COCO's test set alone", f"{len(self.data)} sets")


@dataclass(frozen=True, kw_only=True)
class HierarcapsOptions(SuiteOptions):
    """Evaluate models on HierarCaps: walk from each image's nearest caption to the root, for every kind of root."""

    data: Path
    """Folder with HierarCaps's table (columns `captions`, levels joined by " => ", and `image_url`) and the images, as
    files or in a zip file, named like the end of their URL."""
    walk: TraversalConfig = field(default_factory=TraversalConfig)
    """All roots and inclusion scores are evaluated."""


@dataclass(frozen=True, kw_only=True)
class HierarimgsOptions(SuiteOptions):
    """Evaluate models on HierarImgs: walk from each caption's nearest image to the root, for every kind of root."""

    data: Path
    """Folder with a table (columns `caption`, and `images`, file names from general to specific joined by " => ") and
    the images, as files or in a zip file."""
    walk: TraversalConfig = field(default_factory=TraversalConfig)
    """All roots and inclusion scores are evaluated."""


@dataclass(frozen=True, kw_only=True)
class UncertaintyOptions(ShardSuiteOptions):
    """Measure uncertainty against accuracy and caption length, and after hiding or blurring.

    Accuracy needs labels and class names (the published layout); captions need `caption_key`.
    """

    data: tuple[str, ...]
    """Folders of the published layout (wds_imagenet1k_test), or shards by path, address or pattern."""
    caption_key: str | None = None
    """Where an image's captions are: `txt` (one per line), or a dotted path into its json; None for no captions."""
    num_bins: int = 10
    """Bins of uncertainty for accuracy."""
    keep_ratio: float = 0.25
    """Share of patches that stay visible when the others are hidden."""
    blur: float = 0.04
    """Standard deviation of the blur, as a share of the image's side."""
    mask_id: int | None = None
    """Id of the token that replaces hidden tokens of captions (32000 for the released models); None removes them."""
    show: int = 5
    """Number of most and of least certain images to name."""

    def __post_init__(self) -> None:
        check_at_least(2, num_bins=self.num_bins)
        check_at_least(0, show=self.show)
        check(0 < self.keep_ratio < 1, "keep_ratio", "must be between 0 and 1", self.keep_ratio)
        check(0 < self.blur < math.inf, "blur", "must be positive and finite", self.blur)


WrongCaption = Literal["swap", "truncate", "generic"]


@dataclass(frozen=True, kw_only=True)
class NoiseOptions(ShardSuiteOptions):
    """Make captions of some images wrong, and measure how well each score of a pair finds them: sampled distance,
    cosine, inclusion and variances, and distance and variances in a regression fitted on other folds.
    """

    data: tuple[str, ...]
    """Folders of the published layout (wds_flickr30k_test), or shards by path, address or pattern."""
    caption_key: str = "txt"
    """Where an image's captions are: `txt` (one per line), or a dotted path into its json. The first is used."""
    swap: float = 0.3
    """Share of the captions that are replaced."""
    kind: tuple[WrongCaption, ...] = ("swap",)
    """What replaces them. `swap`: each other's; `truncate`: their first half; `generic`: "an image"."""

    def __post_init__(self) -> None:
        check(0 < self.swap < 1, "swap", "must be between 0 and 1", self.swap)


@dataclass(frozen=True, kw_only=True)
class DecisionsOptions(ClassSuiteOptions):
    """Measure wrong answers, calibration, label sets and out-of-distribution images. Every uncertainty score is
    compared with the largest probability on the same images.

    Cross-validated: each fold uses parameters fitted on the others.
    """

    templates: tuple[str, ...] = ()
    """Prompts with {} for the label; by default the data set's own, or "{}" and "a photo of a {}."."""
    out_of_distribution: tuple[str, ...] = ()
    """Folders of images, shards, or folders of the published layout. Noise is always tried."""
    beside: tuple[str, ...] = ()
    """Further models, such as adapted ones (`prolip adapt`). Their uncertainty scores of the answers of
    `checkpoint`, and their probabilities, are compared with its own, with paired intervals."""
    known: str | None = None
    """Images that the model was trained on, named as for `out_of_distribution`. Distances are measured from them, by
    default from the other folds of the data."""
    num_folds: int = 5
    """Number of folds of the images."""

    def __post_init__(self) -> None:
        check_at_least(2, num_folds=self.num_folds)


@dataclass(frozen=True, kw_only=True)
class CalibrationOptions(ClassSuiteOptions):
    """Measure a calibration on new labelled images: whether label sets contain the label, and answers are right, as
    often as promised, over all and by label. The images must be others than those of `prolip calibrate`.

    Warns of a broken promise, and of labels that are not as frequent as in the calibration.
    """

    calibration: Path | None = None
    """The file that `prolip calibrate` wrote; by default the model's own."""
    guarantee: float = 0.9
    """Probability that a label set contains the right label."""
    max_error: float = 0.05
    """Maximum share of wrong answers among those given. The others are "don't know"."""


@dataclass(frozen=True, kw_only=True)
class ModelToCalibrate:
    """What both kinds of calibration are told."""

    checkpoint: str
    """A released model, a run, a checkpoint, a folder, hf-hub:OWNER/NAME or open_clip:NAME/TAG."""
    out: Path | None = None
    """The file; by default in the model's folder, where opening the model finds it."""
    tokenizer: str | None = None
    """`clip`, or a tokenizer.json; by default the model's own."""
    batch_size: int = 128
    """Images per forward pass."""
    precision: Precision = "fp32"
    """Precision of the towers. A calibration is for one precision."""
    device: Device = "auto"
    """Where the model runs."""
    seed: int = 0
    """Seed of every random choice."""
    store: StoreConfig = field(default_factory=StoreConfig)
    """How remote shards are read."""

    file: ClassVar = CALIBRATION_FILE

    def __post_init__(self) -> None:
        check_at_least(1, batch_size=self.batch_size)
        check_seed("seed", self.seed)
        if self.out is None and not Path(self.checkpoint).is_dir():
            raise UserError("out", "must be given, as --out FILE, if checkpoint is not a folder", self.checkpoint)

    @property
    def path(self) -> Path:
        """The file to write."""
        return self.out or Path(self.checkpoint) / self.file


@dataclass(frozen=True, kw_only=True)
class CalibrateOptions(ModelToCalibrate):
    """Calibrate a model on labelled images, so that its answers come with guarantees: a temperature for probabilities,
    label sets that contain the right label, and "don't know" where an answer would be wrong too often.

    The guarantees hold for images like these: drawn in the same way, with the same labels. `prolip calibrate search`
    calibrates searches.
    """

    data: str
    """Labelled images that the model was not trained on: a folder with one folder of images per label, or a data set in
    the published layout (wds_imagenet1k_test)."""
    templates: tuple[str, ...] = ()
    """Prompts with {} for the label; by default the data set's own, or "{}" and "a photo of a {}."."""
    classnames: Path | None = None
    """File of labels, one per line, in the folders' order; by default the data set's own, or the folders' names, with
    spaces for _ and -."""
    score: Score = "lac"
    """The score that decides which labels are in a set. `lac`: the smallest sets, if probabilities are right.
    `csd`: the sampled distance, with both variances."""
    prior: Prior = "labelled"
    """How frequent labels are. `labelled`: as estimated from the images used to fit. `even`: all equally."""
    fit_share: float = 0.3
    """Share of the images used to fit the temperature and the labels' frequencies. The others give the guarantees."""
    num_resamples: int = 1000
    """Bootstrap resamples per interval."""

    def __post_init__(self) -> None:
        check(0 < self.fit_share < 1, "fit_share", "must be between 0 and 1", self.fit_share)
        check_at_least(1, num_resamples=self.num_resamples)
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class CalibrateSearchOptions(ModelToCalibrate):
    """Calibrate searches for images on captioned images, so that results contain a right image as often as you ask, and
    nothing is shown if there is none.

    The promises hold for queries like these captions, and images like these. Image queries are calibrated by images
    that share a caption. Decoys need no labels, and promise the second alone.
    """

    data: str | None = None
    """Images with captions that the model was not trained on: shards (a path, an address or a pattern), a data set in
    the published layout, or a folder with one folder of images per class."""
    caption_key: str | None = None
    """Where an image's captions are: `txt` (one per line), a dotted path into its json (captions), or `cls`, the name
    of its class. The default is `cls` for a folder of class folders, else `txt`."""
    decoys: Path | None = None
    """In place of `data`: a file of text queries, one per line, that surely match nothing in `embeddings`."""
    embeddings: str | None = None
    """The collection to search, as `prolip embed` wrote it, if it is larger than `data` and has no image of it. It then
    says how near wrong images are."""
    score: Ranking = "mean"
    """What ranks the images: `mean`, the cosine, or `csd`, the sampled distance."""
    absent_share: float = 0.5
    """Share of queries that no image matches, for the probabilities of results."""

    file: ClassVar = SEARCH_FILE

    def __post_init__(self) -> None:
        check(0 <= self.absent_share <= 1, "absent_share", "must be from 0 to 1", self.absent_share)
        check((self.data is None) != (self.decoys is None), "data", "must be given, or decoys instead", self.data)
        check(self.decoys is None or self.embeddings, "embeddings", "must be given with decoys")
        super().__post_init__()
