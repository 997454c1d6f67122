"""Zero-shot classification by a model's own similarity scale and bias.

N images, C labels, K templates, D dimensions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from prolip.errors import UserError
from prolip.eval.zero_shot import Classifier, aggregate_prompts, zero_shot_logits
from prolip.gaussian import Gaussian


class Classification(NamedTuple):
    """Images classified by labels."""

    labels: list[str]
    """N labels: the most probable one of each image."""
    probabilities: Tensor
    """[N, C], in the order of the given labels; each row sums to 1: how probable a label is if exactly one is right."""
    uncertainty: Tensor
    """[N], total variance of the images."""
    match: Tensor | None
    """[N, C], in [0, 1]: how probable it is that image and label belong together, each pair on its own. None for a
    model that was trained without a bias, such as CLIP."""
    label_uncertainty: Tensor
    """[C], total variance of the labels, averaged over the templates."""


def check_labels(labels: Sequence[str]) -> None:
    """Check the labels of a classifier.

    Raises:
        UserError: there is none, or one occurs twice; or the list is a text.
    """
    if isinstance(labels, str):
        raise UserError(f"labels is the text {labels!r}: give a list of labels")
    if not labels:
        raise UserError("labels is empty: give at least one")
    twice = [label for label, count in Counter(labels).items() if count > 1]
    if twice:
        raise UserError(f"labels has {twice[0]!r} more than once")


def weighted_classifier(prompts: Gaussian, weights: Tensor) -> Classifier:
    """The classifier of weighted prompts: sum of weight * mean, not normalised; sum of weight^2 * variance.

    This is how re-weighted prompts are used (BPRW, docs/specification.md, section 5).

    Args:
        prompts: [C, K, D], unit means.
        weights: [C, K], each row at least 0 and summing to 1.

    Raises:
        UserError: the weights have another shape.
    """
    expected = prompts.mean.shape[:2]
    if weights.shape != expected:
        raise UserError(
            f"prompt_weights is {list(weights.shape)}: it must have one row per label and one column per template, "
            f"{list(expected)}"
        )
    weights = weights.to(prompts.mean)
    weight = torch.einsum("ck,ckd->cd", weights, prompts.mean)
    return Classifier(weight, torch.einsum("ck,ckd->cd", weights.square(), prompts.var))


def classification(
    images: Gaussian,
    prompts: Gaussian,
    labels: Sequence[str],
    *,
    weights: Tensor | None,
    logit_scale: float,
    logit_bias: float | None,
) -> Classification:
    """Classify embedded images.

    A pair's logit is that of training: `scale * (mean . mean - (total_var + total_var) / 2) + bias`. The probabilities
    are the softmax over labels, also for a model that was trained with a sigmoid: of independent pairs, of which
    exactly one belongs together, pair c does so with probability proportional to exp(logit c). Bias and the image's
    variance cancel there.

    Args:
        images: [N, D], unit means.
        prompts: [C, K, D], unit means.
        labels: C labels.
        weights: [C, K], see `weighted_classifier`; None for the uniform ensemble.
        logit_scale: the model's scale.
        logit_bias: the model's bias; None if it has none.

    Raises:
        UserError: the weights have another shape.
    """
    classifier = aggregate_prompts(prompts) if weights is None else weighted_classifier(prompts, weights)
    logits = zero_shot_logits(images.mean, classifier.weight, classifier.total_var, logit_scale=logit_scale)
    match: Tensor | None = None
    if logit_bias is not None:
        match = (logits - 0.5 * logit_scale * images.total_var[:, None] + logit_bias).sigmoid()
    return Classification(
        labels=[labels[place] for place in logits.argmax(dim=1).tolist()],
        probabilities=logits.softmax(dim=1),
        uncertainty=images.total_var,
        match=match,
        label_uncertainty=prompts.total_var.mean(dim=1),
    )
