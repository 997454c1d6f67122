"""The results of the emoji suite, as stored in eval.json. All shares and recalls are in [0, 1]."""

from dataclasses import dataclass

from prolip.evaluation.typed_json import from_json, to_json
from prolip.metrics.hierarchy import Inclusion
from prolip.metrics.retrieval import RetrievalResult
from prolip.metrics.uncertainty import AccuracyBins, LevelUncertainty
from prolip.metrics.zero_shot import ZeroShotResult


@dataclass(frozen=True, kw_only=True)
class ViewFigures:
    """Changed images compared with the same images whole."""

    name: str
    trained: bool
    """Whether training asks for the order (hidden patches) or not (blur, zoom)."""
    share_more_uncertain: float
    ratio: float
    """Mean uncertainty of the changed images divided by that of the whole ones."""


@dataclass(frozen=True, kw_only=True)
class SetFigures:
    """Results on one set of images, such as `test-openmoji`."""

    name: str
    num_pictures: int
    group: ZeroShotResult
    group_with_var: ZeroShotResult
    """Zero-shot results with class variances in the logits."""
    group_with_prior: ZeroShotResult
    """Zero-shot results with the frequencies of the classes among trained emoji as well."""
    subgroup: ZeroShotResult
    subgroup_with_var: ZeroShotResult
    subgroup_with_prior: ZeroShotResult
    image_to_text: RetrievalResult
    text_to_image: RetrievalResult
    image_to_text_by_mean: RetrievalResult
    """Scored by means alone instead of by sampled distance."""
    text_to_image_by_mean: RetrievalResult
    group_bins: AccuracyBins | None
    """Accuracy of the group by image uncertainty; None for fewer than `MIN_FOR_BINS` images."""
    retrieval_bins: AccuracyBins | None
    """Image-to-text recall at 10 by image uncertainty."""
    inclusion_chain: list[Inclusion]
    """Image in name, name in subgroup, subgroup in group, group in "a picture"."""
    picture_inclusion: list[Inclusion]
    """Image in each level of caption."""
    views: list[ViewFigures]


@dataclass(frozen=True, kw_only=True)
class PairShare:
    """How often the more general caption of an emoji is the more uncertain one; 0.5 is chance."""

    general: str
    specific: str
    share: float
    share_plain: float
    """Share among captions that name one level."""
    share_chained: float
    """Share among captions that also list the levels above; NaN if there are none."""
    share_not_longer: float
    """Share among pairs whose specific caption has no more tokens than the general one, where length cannot be the
    reason."""
    num_not_longer: int


@dataclass(frozen=True, kw_only=True)
class LevelFigures:
    """Uncertainty of captions by level, the most general first."""

    levels: list[str]
    num_emoji: int
    uncertainty: LevelUncertainty
    pairs: list[PairShare]
    share_chains_ordered: float
    """Share of emoji captions whose uncertainty falls at both steps, group > subgroup > name; 1/6 is chance."""
    mean_tokens: list[float]
    """Mean caption length by level in tokens, the confounding variable."""
    length_spearman: float
    """Rank correlation of uncertainty and length among name captions."""

    @property
    def group_over_name(self) -> PairShare:
        """The pair of group and name."""
        return next(pair for pair in self.pairs if (pair.general, pair.specific) == ("group", "name"))


@dataclass(frozen=True, kw_only=True)
class PromptMethod:
    """One way to use a class's prompts. Ranges contain 95 % of bootstrap resamples of emoji."""

    name: str
    top1: float
    """Top-1 accuracy by means alone."""
    top1_low: float
    top1_high: float
    gain: float
    """Gain in top-1 accuracy over even weights, on the same images."""
    gain_low: float
    gain_high: float


@dataclass(frozen=True, kw_only=True)
class PromptWeight:
    """Weight of one template: mean, 10th and 90th percentile over classes."""

    example: str
    """The template filled with the first class."""
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
    """Ways to use prompts for the classes of one level, on held-out emoji in all designs together."""

    level: str
    num_classes: int
    num_prompts: int
    """Prompts per class."""
    num_pictures: int
    num_emoji: int
    voters: str
    """The set whose images vote for the weights, without labels, and guide the greedy choice, with labels."""
    max_rounds: int
    """Largest number of rounds of a class."""
    methods: list[PromptMethod]
    """Even weights, re-weighted prompts, then the filters."""
    weights: list[PromptWeight]
    classes: list[WonAndLost]


@dataclass(frozen=True, kw_only=True)
class ModelFigures:
    """All results of one model."""

    sets: list[SetFigures]
    prompting: list[PromptSetFigures]
    """Results for groups, then for subgroups."""
    unseen_names: LevelFigures
    """Captions of held-out emoji, whose names are in no training caption."""
    seen_names: LevelFigures
    """Captions of trained emoji, whose order hierarchical masking trains."""


@dataclass(frozen=True, kw_only=True)
class ScoredCaption:
    """A candidate caption of an image."""

    text: str
    similarity: float
    """Dot product of the means."""
    similarity_std: float
    """Standard deviation of the dot product over samples of the two Gaussians."""
    uncertainty: float
    """Total variance relative to the median name caption."""
    correct: bool


@dataclass(frozen=True, kw_only=True)
class GalleryImage:
    """A test image with its nearest captions."""

    set_name: str
    key: str
    emoji: str
    name: str
    uncertainty: float
    """Total variance relative to the median image of its set."""
    captions: list[ScoredCaption]
    rank: int
    """Rank of the best correct caption among all names of the set, from 1."""


@dataclass(frozen=True, kw_only=True)
class RankedCaption:
    """A caption in a ranking by uncertainty."""

    text: str
    uncertainty: float
    """Total variance relative to the median name caption."""


@dataclass(frozen=True, kw_only=True)
class ChainExample:
    """The captions of one held-out emoji, from "a picture" to its name."""

    set_name: str
    key: str
    emoji: str
    captions: list[str]
    """One caption per level, the most general first."""
    uncertainty: list[float]
    """Total variance relative to that of the most general caption."""


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Examples of the trained model for the report."""

    pictures: list[GalleryImage]
    """Evenly spaced over the set: chosen by position, not by result."""
    most_certain: list[GalleryImage]
    least_certain: list[GalleryImage]
    most_certain_captions: list[RankedCaption]
    least_certain_captions: list[RankedCaption]
    chains: list[ChainExample]


@dataclass(frozen=True, kw_only=True)
class Range:
    """A figure, and the range of 95 % of bootstrap resamples of emoji; NaN if there is nothing to measure."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class SetDecisions:
    """Label sets and answers on one set of held-out emoji, or on several together."""

    name: str
    """Name of the set; "" for all sets together."""
    num_pictures: int
    right: Range
    """Share of images whose most probable label is right."""
    covered: Range
    """Share of images whose set contains the right label."""
    size: Range
    """Mean number of labels in a set."""
    answered: Range
    """Share of images that get an answer."""
    wrong: Range
    """Share of wrong answers among those given."""


@dataclass(frozen=True, kw_only=True)
class RiskCurve:
    """Share of wrong answers if only the least doubtful images are answered."""

    name: str
    """The score of doubt."""
    answered: list[float]
    wrong: list[float]
    auroc: Range
    """Probability that a wrong answer has more doubt than a right one."""


@dataclass(frozen=True, kw_only=True)
class Reliabilities:
    """How well probabilities agree with the labels, with one scale."""

    name: str
    calibration_error: Range
    nll: Range
    """Negative log-likelihood, in nats."""
    confidence: list[float]
    """Mean largest probability of ten bins of equally many images."""
    accuracy: list[float]
    """Share of right answers of these bins."""


@dataclass(frozen=True, kw_only=True)
class DecidedImage:
    """A held-out image with its label set and its answer."""

    set_name: str
    key: str
    emoji: str
    name: str
    label: str
    """The right label."""
    probability: float
    """Probability of the most probable label."""
    label_set: list[str]
    """Labels of the set, the most probable first."""
    answered: bool
    """Whether the answer is the most probable label, or "don't know"."""


@dataclass(frozen=True, kw_only=True)
class DecisionFigures:
    """Decisions about the group of held-out emoji, with a calibration on validation emoji."""

    guarantee: float
    max_error: float
    num_labels: int
    num_fitted: int
    """Validation images that fit the temperature."""
    num_held: int
    """Validation images that give the guarantees."""
    temperature: float
    sets: list[SetDecisions]
    """Figures of all sets together, then of each."""
    risk: list[RiskCurve]
    """Curve of the largest probability, then of the image's variance."""
    auroc_difference: Range
    """AUROC of the image's variance minus that of the largest probability."""
    reliability: list[Reliabilities]
    """Figures with the model's own scale, then calibrated."""
    examples: list[DecidedImage]
    """Images of the first set at even distances in their order by probability."""


@dataclass(frozen=True, kw_only=True)
class Headline:
    """One of the headline numbers."""

    name: str
    label: str
    trained: float
    random: float
    """The same number for an untrained model."""
    chance: float
    """The same number without a model: always the largest class, a random order, or a coin."""
    chance_label: str


@dataclass(frozen=True, kw_only=True)
class EmojiResults:
    """All results of the emoji suite."""

    split: str
    headlines: list[Headline]
    trained: ModelFigures
    random: ModelFigures
    gallery: Gallery
    decisions: DecisionFigures | None
    """None for the validation split, or without validation emoji."""
    chance_recall_at_10: dict[str, float]
    """Expected image-to-text recall at 10 of a random order, by set."""
    seconds: float

    def to_json(self) -> str:
        """Return the text of eval.json."""
        return to_json(self)

    @classmethod
    def from_json(cls, text: str) -> "EmojiResults":
        """Parse the text of eval.json.

        Raises:
            ValueError: a field is missing or has the wrong type; the message names it.
        """
        return from_json(cls, text)
