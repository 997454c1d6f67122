"""Compare ways to use a class's prompts on held-out emoji: even weights, re-weighting and five filters.

Nothing is fitted to the scored images. Another set votes for prompt weights and provides the labels for the greedy
choice. E emoji, M methods, C classes, K prompts per class, N images, D dimensions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from prolip.demo.suite.emoji_samples import EmbeddedCaptions, EmojiSample, LabelledImages, codes
from prolip.demo.suite.measure_sets import ClassPrompts
from prolip.demo.suite.results import PromptMethod, PromptSetFigures, PromptWeight, WonAndLost
from prolip.gaussian import concatenate
from prolip.metrics.bprw import reweight_prompts
from prolip.metrics.config import BprwConfig
from prolip.metrics.prompts import (
    SmallestInClass,
    SmallestOfAll,
    UpToThreshold,
    WithinSpread,
    filter_prompts,
    greedy_counts,
)
from prolip.metrics.statistics import bootstrap, ratio
from prolip.metrics.zero_shot import (
    PUBLISHED_LOGIT_SCALE,
    Classifier,
    aggregate_prompts,
    correct_within,
    zero_shot_logits,
)

EVEN, REWEIGHTED = "even weights", "re-weighted (BPRW)"


def measure_prompting(
    level: str,
    prompts: ClassPrompts,
    captions: EmbeddedCaptions,
    scored: Sequence[LabelledImages],
    others: LabelledImages,
) -> PromptSetFigures:
    """Measure top-1 accuracy of each method, and its gain over even weights, with intervals.

    Intervals resample emoji, not images, because the designs of an emoji tend to be right or wrong together.

    Args:
        level: "group" or "subgroup".
        prompts: prompts of all classes.
        captions: embeddings of all prompts.
        scored: sets of images to score, together.
        others: another set. It votes without labels, and the greedy choice uses its labels.
    """
    ensembles = prompts.gaussian(level, captions)
    images = concatenate([labelled.images for labelled in scored])
    samples = [sample for labelled in scored for sample in labelled.samples]
    labels, voters = prompts.labels(level, samples), others.images
    reweighted = reweight_prompts(ensembles, voters, BprwConfig(num_neighbors=min(10, len(voters.mean))))
    greedy = greedy_counts(ensembles, voters.mean, prompts.labels(level, others.samples))
    num_classes, num_prompts, _ = ensembles.mean.shape
    half, total_var = max(1, num_prompts // 2), ensembles.total_var
    classifiers: dict[str, Classifier] = {
        EVEN: aggregate_prompts(ensembles),
        REWEIGHTED: reweighted.as_classifier(),
        "up to the class's mean Σσ²": filter_prompts(ensembles, WithinSpread(num_std=0.0)),
        f"the {half} most certain of a class": filter_prompts(ensembles, SmallestInClass(count=half)),
        "the more certain half of all": filter_prompts(
            ensembles, SmallestOfAll(count=max(1, num_classes * num_prompts // 2))
        ),
        "up to the mean Σσ² of all": filter_prompts(ensembles, UpToThreshold(threshold=float(total_var.mean()))),
        "as many as labels ask for (greedy)": filter_prompts(ensembles, greedy),
    }
    hits = torch.stack(
        [
            correct_within(
                zero_shot_logits(images.mean, classifier.weight, logit_scale=PUBLISHED_LOGIT_SCALE), labels, 1
            ).double()
            for classifier in classifiers.values()
        ],
        dim=1,
    )
    by_emoji, sizes = _by_emoji(hits, samples)
    low, high = torch.quantile(reweighted.weights.double(), torch.tensor([0.1, 0.9], dtype=torch.float64), dim=0)
    mean = reweighted.weights.double().mean(dim=0)
    first = prompts.texts(level)[0]
    return PromptSetFigures(
        level=level,
        num_classes=num_classes,
        num_prompts=num_prompts,
        num_pictures=len(samples),
        num_emoji=len(sizes),
        voters=others.name,
        max_rounds=int(reweighted.rounds.max()),
        methods=[_method(name, by_emoji[:, place], by_emoji[:, 0], sizes) for place, name in enumerate(classifiers)],
        weights=[
            PromptWeight(example=first[place], mean=float(mean[place]), low=float(low[place]), high=float(high[place]))
            for place in range(num_prompts)
        ],
        classes=[
            _won_and_lost(name, texts, reweighted.weights[row])
            for row, (name, texts) in enumerate(zip(prompts.names(level), prompts.texts(level), strict=True))
        ],
    )


def _by_emoji(hits: Tensor, samples: Sequence[EmojiSample]) -> tuple[Tensor, Tensor]:
    """Count the correct images of each emoji, [E, M], and all its images, [E]."""
    emoji = codes([sample.codepoint for sample in samples])
    num_emoji = int(emoji.max()) + 1
    sums = torch.zeros(num_emoji, hits.shape[1], dtype=hits.dtype).index_add_(0, emoji, hits)
    return sums, torch.bincount(emoji, minlength=num_emoji).double()


def _method(name: str, correct: Tensor, correct_evenly: Tensor, sizes: Tensor) -> PromptMethod:
    top1 = bootstrap(ratio, correct, sizes)
    # Paired by emoji, so that their difficulty cancels out.
    gain = bootstrap(ratio, correct - correct_evenly, sizes)
    return PromptMethod(
        name=name,
        top1=top1.value,
        top1_low=top1.low,
        top1_high=top1.high,
        gain=gain.value,
        gain_low=gain.low,
        gain_high=gain.high,
    )


def _won_and_lost(name: str, texts: Sequence[str], weights: Tensor) -> WonAndLost:
    best, worst = int(weights.argmax()), int(weights.argmin())
    return WonAndLost(
        name=name,
        won=texts[best],
        won_weight=float(weights[best]),
        lost=texts[worst],
        lost_weight=float(weights[worst]),
    )
