"""Which prompts a class is described by: even weights, the five filters and re-weighted prompts on held-out emoji.

Nothing is fitted to the pictures that are scored: those that vote for prompts' weights, and the labelled ones that the
greedy choice is fitted to, are another set. E emoji, M methods, C classes, K prompts a class, N pictures, D dimensions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from prolip.demo.suite.measures import ClassPrompts
from prolip.demo.suite.results import PromptMethod, PromptSetFigures, PromptWeight, WonAndLost
from prolip.demo.suite.samples import EmbeddedCaptions, EmojiSample, codes
from prolip.eval.bprw import reweight_prompts
from prolip.eval.config import BprwConfig
from prolip.eval.prompts import (
    SmallestInClass,
    SmallestOfAll,
    UpToThreshold,
    WithinSpread,
    filter_prompts,
    greedy_counts,
)
from prolip.eval.statistics import bootstrap_interval
from prolip.eval.zero_shot import Classifier, aggregate_prompts, correct_within, zero_shot_logits
from prolip.gaussian import Gaussian, concatenate

EVEN, REWEIGHTED = "even weights", "re-weighted (BPRW)"


def measure_prompting(
    level: str,
    prompts: ClassPrompts,
    captions: EmbeddedCaptions,
    scored: Sequence[tuple[Gaussian, Sequence[EmojiSample]]],
    others: tuple[str, Gaussian, Sequence[EmojiSample]],
) -> PromptSetFigures:
    """Top-1 by each way of using a class's prompts, and what it gains over even weights, with intervals.

    Intervals resample emoji, not pictures: the designs of one emoji are right or wrong together.

    Args:
        level: "group" or "subgroup", what is classified into.
        prompts: of all classes.
        captions: holds every prompt.
        scored: sets of pictures that are scored, together.
        others: name, pictures and records of the set that votes (without labels) and that the greedy choice is fitted
            to (with them).
    """
    ensembles = prompts.gaussian(level, captions)
    images = concatenate([gaussian for gaussian, _ in scored])
    samples = [sample for _, some in scored for sample in some]
    labels = prompts.labels(level, samples)
    voters_name, voters, voter_samples = others
    found = reweight_prompts(ensembles, voters, BprwConfig(num_neighbors=min(10, len(voters.mean))))
    greedy = greedy_counts(ensembles, voters.mean, prompts.labels(level, voter_samples))
    num_classes, num_prompts, _ = ensembles.mean.shape
    half, total_var = max(1, num_prompts // 2), ensembles.total_var
    classifiers: dict[str, Classifier] = {
        EVEN: aggregate_prompts(ensembles),
        REWEIGHTED: found.as_classifier(),
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
            correct_within(zero_shot_logits(images.mean, classifier.weight), labels, 1).double()
            for classifier in classifiers.values()
        ],
        dim=1,
    )
    by_emoji, sizes = _by_emoji(hits, samples)
    low, high = torch.quantile(found.weights.double(), torch.tensor([0.1, 0.9], dtype=torch.float64), dim=0)
    mean = found.weights.double().mean(dim=0)
    first = prompts.texts(level)[0]
    return PromptSetFigures(
        level=level,
        num_classes=num_classes,
        num_prompts=num_prompts,
        num_pictures=len(samples),
        num_emoji=len(sizes),
        voters=voters_name,
        max_rounds=int(found.rounds.max()),
        methods=[_method(name, by_emoji[:, place], by_emoji[:, 0], sizes) for place, name in enumerate(classifiers)],
        weights=[
            PromptWeight(example=first[place], mean=float(mean[place]), low=float(low[place]), high=float(high[place]))
            for place in range(num_prompts)
        ],
        classes=[
            _won_and_lost(name, texts, found.weights[row])
            for row, (name, texts) in enumerate(zip(prompts.names(level), prompts.texts(level), strict=True))
        ],
    )


def _by_emoji(hits: Tensor, samples: Sequence[EmojiSample]) -> tuple[Tensor, Tensor]:
    """Right answers of each emoji's pictures, [E, M], and how many pictures it has, [E]."""
    emoji = codes([sample.codepoint for sample in samples])
    num_emoji = int(emoji.max()) + 1
    sums = torch.zeros(num_emoji, hits.shape[1], dtype=hits.dtype).index_add_(0, emoji, hits)
    return sums, torch.bincount(emoji, minlength=num_emoji).double()


def _method(name: str, right: Tensor, right_evenly: Tensor, sizes: Tensor) -> PromptMethod:
    def share(some: Tensor, count: Tensor) -> float:
        return float(some.sum() / count.sum())

    top1 = bootstrap_interval(share, right, sizes)
    # The same emoji on both sides: what their difficulty has in common drops out.
    gain = bootstrap_interval(share, right - right_evenly, sizes)
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
