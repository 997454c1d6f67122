"""What the emoji suite finds, as `eval.json` holds it. Shares and recalls are in [0, 1] throughout."""

from dataclasses import dataclass

from prolip.eval.hierarchy import Inclusion
from prolip.eval.retrieval import RetrievalResult
from prolip.eval.uncertainty import AccuracyBins, LevelUncertainty
from prolip.eval.zero_shot import ZeroShotResult
from prolip.suites.typed_json import from_json, to_json


@dataclass(frozen=True, kw_only=True)
class ViewFigures:
    """Changed pictures against the same pictures whole."""

    name: str
    trained: bool
    """Whether training asks for the order (hidden patches) or not (blur, zoom)."""
    share_more_uncertain: float
    ratio: float
    """Mean uncertainty of the changed pictures / of the whole ones."""


@dataclass(frozen=True, kw_only=True)
class SetFigures:
    """One set of pictures, such as `test-openmoji`."""

    name: str
    num_pictures: int
    group: ZeroShotResult
    group_with_var: ZeroShotResult
    """The same with the class variances in the logits."""
    subgroup: ZeroShotResult
    subgroup_with_var: ZeroShotResult
    image_to_text: RetrievalResult
    text_to_image: RetrievalResult
    image_to_text_by_mean: RetrievalResult
    """Scored by means alone instead of the sampled distance."""
    text_to_image_by_mean: RetrievalResult
    group_bins: AccuracyBins | None
    """Accuracy of the group by picture uncertainty; None below `MIN_FOR_BINS` pictures."""
    retrieval_bins: AccuracyBins | None
    """Image-to-text recall at 10 by picture uncertainty."""
    inclusion_chain: list[Inclusion]
    """picture in name, name in subgroup, subgroup in group, group in "a picture"."""
    picture_inclusion: list[Inclusion]
    """picture in each level of caption."""
    views: list[ViewFigures]


@dataclass(frozen=True, kw_only=True)
class PairShare:
    """How often the more general caption of the same emoji is the more uncertain one; 0.5 is chance."""

    general: str
    specific: str
    share: float
    share_plain: float
    """Among captions that name one level."""
    share_chained: float
    """Among captions that list the levels above as well; NaN when there are none."""
    share_not_longer: float
    """Among pairs whose specific caption has no more tokens than the general one, so that length cannot explain it."""
    num_not_longer: int


@dataclass(frozen=True, kw_only=True)
class LevelFigures:
    """Uncertainty of captions by level, the most general first."""

    levels: list[str]
    num_emoji: int
    uncertainty: LevelUncertainty
    pairs: list[PairShare]
    share_chains_ordered: float
    """Share of emoji captions whose uncertainty falls at both steps group > subgroup > name (chance: 1/6)."""
    mean_tokens: list[float]
    """Mean caption length by level, in tokens: the confound."""
    length_spearman: float
    """Rank correlation of uncertainty with length among the name captions alone."""


@dataclass(frozen=True, kw_only=True)
class PromptMethod:
    """One way to use a class's prompts. Ranges hold 95 % of bootstrap resamples of emoji."""

    name: str
    top1: float
    """By means alone."""
    top1_low: float
    top1_high: float
    gain: float
    """Top-1 above that of even weights, on the same pictures."""
    gain_low: float
    gain_high: float


@dataclass(frozen=True, kw_only=True)
class PromptWeight:
    """What one template weighs: the mean over classes, and their 10th and 90th percentile."""

    example: str
    """The template filled for the first class."""
    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class WonAndLost:
    """The prompts of one class with the largest and the smallest weight."""

    name: str
    won: str
    won_weight: float
    lost: str
    lost_weight: float


@dataclass(frozen=True, kw_only=True)
class PromptSetFigures:
    """Ways to use prompts at one level of classes, on held-out emoji of all designs together."""

    level: str
    num_classes: int
    num_prompts: int
    """Prompts a class."""
    num_pictures: int
    num_emoji: int
    voters: str
    """The set whose pictures, without labels, vote for the weights, and with labels lead the greedy choice."""
    max_rounds: int
    """Rounds of the slowest class."""
    methods: list[PromptMethod]
    """Even weights first, re-weighted second, then the filters."""
    weights: list[PromptWeight]
    classes: list[WonAndLost]


@dataclass(frozen=True, kw_only=True)
class ModelFigures:
    """Everything measured of one model."""

    sets: list[SetFigures]
    prompting: list[PromptSetFigures]
    """Groups, then subgroups."""
    unseen_names: LevelFigures
    """Captions of held-out emoji: their names were in no training caption."""
    seen_names: LevelFigures
    """Captions of trained emoji: hierarchical masking trains their order."""


@dataclass(frozen=True, kw_only=True)
class ScoredCaption:
    """A caption as one picture's candidate."""

    text: str
    similarity: float
    """mean . mean."""
    similarity_std: float
    """Standard deviation of z_image . z_text over samples of the two Gaussians."""
    uncertainty: float
    """Total variance relative to the median name caption."""
    correct: bool


@dataclass(frozen=True, kw_only=True)
class GalleryPicture:
    """A test picture with its nearest captions."""

    set_name: str
    key: str
    emoji: str
    name: str
    uncertainty: float
    """Total variance relative to the median picture of its set."""
    captions: list[ScoredCaption]
    rank: int
    """Rank of the best right caption among all names of the set, from 1."""


@dataclass(frozen=True, kw_only=True)
class RankedCaption:
    """A caption with its place by uncertainty."""

    text: str
    uncertainty: float
    """Total variance relative to the median name caption."""


@dataclass(frozen=True, kw_only=True)
class ChainExample:
    """One held-out emoji from "a picture" down to its own picture."""

    set_name: str
    key: str
    emoji: str
    captions: list[str]
    """One a level, the most general first."""
    uncertainty: list[float]
    """Total variance relative to the most general caption's."""


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Examples of the trained model for the report."""

    pictures: list[GalleryPicture]
    """Evenly spaced over the set's keys: chosen by place, not by result."""
    most_certain: list[GalleryPicture]
    least_certain: list[GalleryPicture]
    most_certain_captions: list[RankedCaption]
    least_certain_captions: list[RankedCaption]
    chains: list[ChainExample]


@dataclass(frozen=True, kw_only=True)
class Headline:
    """One of the five figures that matter."""

    name: str
    label: str
    trained: float
    random: float
    """The same figure of an untrained model."""
    chance: float
    """What needs no model: always the largest class, a random order, a coin."""
    chance_label: str


@dataclass(frozen=True, kw_only=True)
class EmojiResults:
    """The demo's evaluation."""

    split: str
    headlines: list[Headline]
    trained: ModelFigures
    random: ModelFigures
    gallery: Gallery
    chance_recall_at_10: dict[str, float]
    """By set: expected image-to-text recall at 10 of a random order."""
    seconds: float

    def to_json(self) -> str:
        """The text of `eval.json`."""
        return to_json(self)

    @classmethod
    def from_json(cls, text: str) -> "EmojiResults":
        """Results from the text of `eval.json`; ValueError names the field that does not fit."""
        return from_json(cls, text)
