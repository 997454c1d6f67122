"""The headlines per item, for bootstrap intervals and for comparing two models on the same items.

N images, E emoji, T templates.
"""

from collections.abc import Sequence

from torch import Tensor

from prolip.demo.suite.emoji_samples import EmbeddedCaptions, EmojiSample
from prolip.demo.suite.measure_sets import (
    ClassPrompts,
    Trained,
    correct_pairs,
    logits_with_prior,
    retrieval_caption,
)
from prolip.eval.retrieval import first_ranks
from prolip.eval.zero_shot import PUBLISHED_LOGIT_SCALE, correct_within, zero_shot_logits
from prolip.gaussian import Gaussian


def zero_shot_items(
    level: str,
    images: Gaussian,
    samples: Sequence[EmojiSample],
    captions: EmbeddedCaptions,
    prompts: ClassPrompts,
    trained: Trained | None = None,
) -> Tensor:
    """Whether each image is classified correctly, f64 [N]: by means alone, or with the frequencies of the classes.

    Args:
        level: "group" or "subgroup".
        images: [N, D], one per sample.
        samples: N samples.
        captions: embeddings of all prompts.
        prompts: prompts of all classes.
        trained: see `logits_with_prior`; None for means alone.
    """
    if trained is None:
        weight = prompts.classifier(level, captions).weight
        logits = zero_shot_logits(images.mean, weight, logit_scale=PUBLISHED_LOGIT_SCALE)
    else:
        logits = logits_with_prior(level, images, captions, prompts, trained)
    return correct_within(logits, prompts.labels(level, samples), 1).double()


def recall_items(images: Gaussian, samples: Sequence[EmojiSample], captions: EmbeddedCaptions, k: int) -> Tensor:
    """Whether a correct caption is among the first k of each image, by sampled distance, f64 [N]."""
    texts = captions.of(map(retrieval_caption, samples))
    return (first_ranks(images, texts, correct_pairs(samples)) < k).double()


def order_items(samples: Sequence[EmojiSample], captions: EmbeddedCaptions) -> Tensor:
    """Share of templates in which the group is more uncertain than the name, one value per distinct emoji, f64 [E].

    A tie counts half. There is one item per emoji, because the templates of an emoji mostly agree.
    """
    distinct = list({sample.codepoint: sample for sample in samples}.values())
    wide, narrow = (
        captions.total_var(caption for sample in distinct for caption in sample.captions[level]).view(len(distinct), -1)
        for level in ("group", "name")
    )
    return ((wide > narrow).double() + (wide == narrow).double() / 2).mean(dim=1)
