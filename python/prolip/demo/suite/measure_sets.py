"""Measure one model on one set of emoji images, and on captions by level."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from prolip.decisions.prior import label_shares, log_prior
from prolip.demo.data.captions import LEVELS
from prolip.demo.suite.emoji_samples import EmbeddedCaptions, EmojiSample, LabelledImages, codes, is_chained
from prolip.demo.suite.results import LevelFigures, PairShare, SetFigures, ViewFigures
from prolip.errors import UserError
from prolip.gaussian import Gaussian
from prolip.metrics.hierarchy import inclusion_chain, inclusion_in_each
from prolip.metrics.retrieval import evaluate_retrieval, first_ranks, same_group
from prolip.metrics.statistics import spearman
from prolip.metrics.uncertainty import (
    AccuracyBins,
    more_uncertain,
    share_more_uncertain,
    share_ordered,
    uncertainty_bins,
    uncertainty_by_level,
)
from prolip.metrics.zero_shot import (
    PUBLISHED_LOGIT_SCALE,
    Classifier,
    ZeroShotResult,
    aggregate_prompts,
    correct_within,
    evaluate_zero_shot,
    zero_shot_logits,
)
from prolip.pretrained.classify import Similarity, weigh

MIN_FOR_BINS = 100
"""Smallest set for ten bins: with fewer than ten images each, bins would show noise."""
PAIRS = (("group", "name"), ("subgroup", "name"), ("group", "subgroup"))


class ClassPrompts:
    """The prompts of all groups and subgroups: the captions of all templates, without duplicates."""

    def __init__(self, samples: Sequence[EmojiSample]) -> None:
        self._of = {
            level: {getattr(sample, level): list(dict.fromkeys(sample.captions[level])) for sample in samples}
            for level in ("group", "subgroup")
        }
        """By level and class."""

    def classifier(self, level: str, captions: EmbeddedCaptions) -> Classifier:
        """Build the classifier of a level by averaging each class's prompts."""
        return aggregate_prompts(self.gaussian(level, captions))

    def gaussian(self, level: str, captions: EmbeddedCaptions) -> Gaussian:
        """Return the Gaussians of the prompts of all classes of a level, [C, K, D].

        Raises:
            UserError: the classes have different numbers of prompts.
        """
        prompts = self.texts(level)
        if len({len(ensemble) for ensemble in prompts}) != 1:
            raise UserError(f"the classes of level {level} have different numbers of prompts")
        flat = captions.of([caption for ensemble in prompts for caption in ensemble])
        return flat.unflatten(len(prompts), len(prompts[0]))

    def names(self, level: str) -> list[str]:
        """Return the class names of a level."""
        return list(self._of[level])

    def texts(self, level: str) -> list[list[str]]:
        """Return the prompts of each class of a level."""
        return list(self._of[level].values())

    def labels(self, level: str, samples: Sequence[EmojiSample]) -> Tensor:
        """Return the class index of each sample at a level, i64 [N]."""
        places = {name: place for place, name in enumerate(self._of[level])}
        return torch.tensor([places[getattr(sample, level)] for sample in samples])


class Trained(NamedTuple):
    """A model's similarity scale, and the emoji that it was trained on."""

    similarity: Similarity
    emoji: Sequence[EmojiSample]
    """The emoji that it was trained on, once each: classes are expected as often as among them."""


def logits_with_prior(
    level: str, images: Gaussian, captions: EmbeddedCaptions, prompts: ClassPrompts, trained: Trained
) -> Tensor:
    """The logits of `Model.classify` for images [N, D], with the frequencies of the classes as its prior, [N, C]."""
    num_classes = len(prompts.names(level))
    shares = label_shares(prompts.labels(level, trained.emoji), num_classes)
    evidence = weigh(images, prompts.gaussian(level, captions), None, trained.similarity)
    return evidence.with_prior(log_prior(shares, num_classes)).logits


def retrieval_caption(sample: EmojiSample) -> str:
    """Return the caption of a sample in retrieval: its name in the first template."""
    return sample.captions["name"][0]


def correct_pairs(samples: Sequence[EmojiSample]) -> Tensor:
    """Mark the correct captions of each image, bool [N, N]: its own, equal captions, and those of equal images."""
    images = codes([sample.image_id for sample in samples])
    captions = codes([retrieval_caption(sample) for sample in samples])
    return same_group(images, images) | same_group(captions, captions)


def measure_set(
    labelled: LabelledImages,
    captions: EmbeddedCaptions,
    prompts: ClassPrompts,
    trained: Trained,
    views: Sequence[ViewFigures],
) -> tuple[SetFigures, dict[str, Tensor]]:
    """Measure a model on one set; returns the figures, and which images are right, bool [N] by measure.

    `views` are results on changed images, which are measured elsewhere.
    """
    name, images, samples = labelled
    texts = captions.of(map(retrieval_caption, samples))
    correct = correct_pairs(samples)
    zero_shot: dict[str, ZeroShotResult] = {}
    right = {"recall_at_10": first_ranks(images, texts, correct) < 10}
    for level in ("group", "subgroup"):
        labels = prompts.labels(level, samples)
        for way, logits in _zero_shot_logits(level, images, captions, prompts, trained).items():
            zero_shot[level + way] = evaluate_zero_shot(logits, labels)
            right[level + way] = correct_within(logits, labels, 1)
    chain = _caption_chain(images, samples, captions)
    figures = SetFigures(
        name=name,
        num_pictures=len(samples),
        **zero_shot,
        image_to_text=evaluate_retrieval(images, texts, correct),
        text_to_image=evaluate_retrieval(texts, images, correct.T),
        image_to_text_by_mean=evaluate_retrieval(images, texts, correct, "mean"),
        text_to_image_by_mean=evaluate_retrieval(texts, images, correct.T, "mean"),
        group_bins=_bins(images, right["group"]),
        retrieval_bins=_bins(images, right["recall_at_10"]),
        inclusion_chain=inclusion_chain(chain),
        picture_inclusion=inclusion_in_each(chain[0], chain[1:]),
        views=list(views),
    )
    return figures, right


def measure_levels(samples: Sequence[EmojiSample], captions: EmbeddedCaptions) -> LevelFigures:
    """Measure the uncertainty of captions by level, over distinct emoji.

    Every template of every emoji counts once. Two levels are compared within the same template.
    """
    samples = list({sample.codepoint: sample for sample in samples}.values())
    flat = {level: [caption for sample in samples for caption in sample.captions[level]] for level in LEVELS}
    total = {level: captions.total_var(flat[level]) for level in LEVELS}
    tokens = {level: captions.tokens(flat[level]) for level in LEVELS}
    chained = torch.tensor([is_chained(sample, t) for sample in samples for t in range(len(sample.captions["name"]))])
    return LevelFigures(
        levels=list(LEVELS),
        num_emoji=len(samples),
        uncertainty=uncertainty_by_level([total[level] for level in LEVELS]),
        pairs=[_pair_share(general, specific, total, tokens, chained) for general, specific in PAIRS],
        share_chains_ordered=share_ordered([total[level] for level in ("group", "subgroup", "name")]),
        mean_tokens=[float(tokens[level].mean()) for level in LEVELS],
        length_spearman=spearman(total["name"], tokens["name"]),
    )


def order_items(samples: Sequence[EmojiSample], captions: EmbeddedCaptions) -> Tensor:
    """Share of templates in which the group is more uncertain than the name, one value per distinct emoji, f64 [E].

    A tie counts half. There is one item per emoji, because the templates of an emoji mostly agree.
    """
    distinct = list({sample.codepoint: sample for sample in samples}.values())
    wide, narrow = (
        captions.total_var(caption for sample in distinct for caption in sample.captions[level]).view(len(distinct), -1)
        for level in ("group", "name")
    )
    return more_uncertain(wide, narrow).mean(dim=1)


def _pair_share(
    general: str, specific: str, total: Mapping[str, Tensor], tokens: Mapping[str, Tensor], chained: Tensor
) -> PairShare:
    wide, narrow = total[general], total[specific]
    not_longer = tokens[specific] <= tokens[general]
    return PairShare(
        general=general,
        specific=specific,
        share=share_more_uncertain(wide, narrow),
        share_plain=share_more_uncertain(wide[~chained], narrow[~chained]),
        share_chained=share_more_uncertain(wide[chained], narrow[chained]),
        share_not_longer=share_more_uncertain(wide[not_longer], narrow[not_longer]),
        num_not_longer=int(not_longer.sum()),
    )


def hidden_patches(num_images: int, num_patches: int, keep_ratio: float) -> Tensor:
    """Draw the patches that each image keeps, sorted, i64 [N, K]."""
    order = torch.rand(num_images, num_patches, generator=torch.Generator().manual_seed(0)).argsort(dim=1)
    return order[:, : max(1, int(num_patches * keep_ratio))].sort(dim=1).values


def blurred(images: Tensor) -> Tensor:
    """Blur images with a 5 x 5 box; edges are repeated."""
    return F.avg_pool2d(F.pad(images, (2, 2, 2, 2), mode="replicate"), 5, stride=1)


def zoomed(images: Tensor) -> Tensor:
    """Enlarge the central half (by side) of each image to its full size."""
    height, width = images.shape[-2:]
    middle = images[..., height // 4 : height - height // 4, width // 4 : width - width // 4]
    return F.interpolate(middle, size=(height, width), mode="bilinear", antialias=True)


def compare_view(name: str, trained: bool, changed: Gaussian, whole: Gaussian) -> ViewFigures:
    """Compare the uncertainty of changed images with that of the same images whole."""
    return ViewFigures(
        name=name,
        trained=trained,
        share_more_uncertain=share_more_uncertain(changed.total_var, whole.total_var),
        ratio=float(changed.total_var.double().mean() / whole.total_var.double().mean()),
    )


def _zero_shot_logits(
    level: str, images: Gaussian, captions: EmbeddedCaptions, prompts: ClassPrompts, trained: Trained
) -> dict[str, Tensor]:
    """Logits by means alone, with class variances, and with the classes' frequencies, each [N, C]."""
    classifier = prompts.classifier(level, captions)
    plain, with_var = (
        zero_shot_logits(images.mean, classifier.weight, total_var, logit_scale=PUBLISHED_LOGIT_SCALE)
        for total_var in (None, classifier.total_var)
    )
    with_prior = logits_with_prior(level, images, captions, prompts, trained)
    return {"": plain, "_with_var": with_var, "_with_prior": with_prior}


def _bins(images: Gaussian, correct: Tensor) -> AccuracyBins | None:
    return uncertainty_bins(images.total_var, correct) if len(correct) >= MIN_FOR_BINS else None


def _caption_chain(
    images: Gaussian, samples: Sequence[EmojiSample], captions: EmbeddedCaptions
) -> list[tuple[str, Gaussian]]:
    """Return the Gaussians of image, name, subgroup, group and "a picture", one row per image and template."""
    num_templates = len(samples[0].captions["name"])
    rows = torch.arange(len(samples)).repeat_interleave(num_templates)
    texts = {level: [caption for sample in samples for caption in sample.captions[level]] for level in LEVELS}
    return [("image", images.rows(rows)), *((level, captions.of(texts[level])) for level in reversed(LEVELS))]
