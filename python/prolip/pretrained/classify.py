"""Zero-shot classification by a model's own similarity scale and bias, and the decisions that a calibration allows.

N images, C labels, K templates, D dimensions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from prolip.decisions.calibration import Calibration, Evidence
from prolip.errors import UserError
from prolip.eval.zero_shot import Classifier, aggregate_prompts, zero_shot_logits
from prolip.gaussian import Gaussian, csd


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
    label_sets: list[list[str]] | None = None
    """N sets, the most probable label first: each contains the right label with the probability `guarantee`. None if no
    guarantee was asked for."""
    answers: list[str | None] | None = None
    """N labels, or None for "don't know". At most the share `max_error` of the labels is wrong. None if no limit was
    asked for."""
    usual: Tensor | None = None
    """f64 [N], in (0, 1]: the share of calibration images that lie at least as far from the known ones. Small: an image
    from elsewhere, which no guarantee covers. None without `guarantee` and `max_error`."""


class Decide(NamedTuple):
    """What to decide by a calibration."""

    guarantee: float | None = None
    """Probability that a label set contains the right label; None for no sets."""
    per_label: bool = False
    """Whether it shall hold for the images of each label."""
    max_error: float | None = None
    """Largest share of wrong answers among those given; None for no answers."""

    @property
    def asked(self) -> bool:
        """Whether anything is to be decided."""
        return self.guarantee is not None or self.max_error is not None


NOTHING = Decide()
PLAIN = ("{}",)
"""The label alone, as its only prompt."""


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


def weigh(
    images: Gaussian, prompts: Gaussian, weights: Tensor | None, *, logit_scale: float, logit_bias: float | None
) -> Evidence:
    """What embedded images and labels say about each other.

    A pair's logit is that of training: `scale * (mean . mean - (total_var + total_var) / 2) + bias`. For the softmax
    over labels, bias and the image's variance are left out: they cancel there.

    Args:
        images: [N, D], unit means.
        prompts: [C, K, D], unit means.
        weights: [C, K], see `weighted_classifier`; None for the uniform ensemble.
        logit_scale: the model's scale.
        logit_bias: the model's bias; None if it has none.

    Raises:
        UserError: the weights have another shape.
    """
    classifier = aggregate_prompts(prompts) if weights is None else weighted_classifier(prompts, weights)
    logits = zero_shot_logits(images.mean, classifier.weight, classifier.total_var, logit_scale=logit_scale)
    pairs = None if logit_bias is None else logits - 0.5 * logit_scale * images.total_var[:, None] + logit_bias
    return Evidence(logits, csd(images, Gaussian(classifier.weight, classifier.var.log())), pairs, images.mean)


def classification(
    images: Gaussian,
    prompts: Gaussian,
    labels: Sequence[str],
    *,
    weights: Tensor | None,
    logit_scale: float,
    logit_bias: float | None,
    decide: Decide = NOTHING,
    calibration: Calibration | None = None,
) -> Classification:
    """Classify embedded images.

    The probabilities are the softmax over labels, also for a model that was trained with a sigmoid: of independent
    pairs, of which exactly one belongs together, pair c does so with probability proportional to exp(logit c).

    Args:
        images: [N, D], unit means.
        prompts: [C, K, D], unit means.
        labels: C labels.
        weights: [C, K], see `weighted_classifier`; None for the uniform ensemble.
        logit_scale: the model's scale.
        logit_bias: the model's bias; None if it has none.
        decide: what to decide; checked by `check_decision`.
        calibration: the model's, for these labels.

    Raises:
        UserError: the weights have another shape.
    """
    evidence = weigh(images, prompts, weights, logit_scale=logit_scale, logit_bias=logit_bias)
    found = Classification(
        labels=[labels[place] for place in evidence.logits.argmax(dim=1).tolist()],
        probabilities=evidence.logits.softmax(dim=1),
        uncertainty=images.total_var,
        match=None if evidence.pair_logits is None else evidence.pair_logits.sigmoid(),
        label_uncertainty=prompts.total_var.mean(dim=1),
    )
    return decided(found, evidence, calibration, decide) if calibration is not None and decide.asked else found


def check_decision(
    decide: Decide,
    calibration: Calibration | None,
    labels: Sequence[str],
    templates: Sequence[str] | None,
    prompt_weights: Tensor | None,
) -> Sequence[str]:
    """Check that a model's calibration allows the decision, and return its prompts.

    Raises:
        UserError: there is none, it is for other labels or prompts, or a guarantee or limit is not between 0 and 1.
    """
    for name in ("guarantee", "max_error"):
        value = getattr(decide, name)
        if value is not None and not 0 < value < 1:
            raise UserError(f"{name} is {value}: it must be between 0 and 1")
    if calibration is None:
        raise UserError("guarantee and max_error need a calibrated model: make a calibration with prolip calibrate")
    if prompt_weights is not None:
        raise UserError(
            "prompt_weights cannot be given with guarantee or max_error: the calibration is for even weights"
        )
    known = calibration.subject.templates
    calibration.check_labels(labels, known if templates is None else templates)
    return known


def decided(found: Classification, evidence: Evidence, calibration: Calibration, decide: Decide) -> Classification:
    """The classification with calibrated probabilities, and with the decisions asked for."""
    probabilities = (evidence.logits / calibration.temperature).softmax(dim=1)
    match = found.match
    if evidence.pair_logits is not None and calibration.pairs is not None:
        match = (calibration.pairs.factor * evidence.pair_logits + calibration.pairs.bias).sigmoid()
    sets: list[list[str]] | None = None
    if decide.guarantee is not None:
        within = calibration.label_sets(evidence, decide.guarantee, per_label=decide.per_label)
        order = probabilities.argsort(dim=1, descending=True, stable=True).tolist()
        sets = [
            [calibration.labels[place] for place in places if inside[place]]
            for places, inside in zip(order, within.tolist(), strict=True)
        ]
    answers: list[str | None] | None = None
    if decide.max_error is not None:
        threshold = calibration.abstention(decide.max_error).threshold
        sure = (evidence.logits.double() / calibration.temperature).softmax(dim=1).amax(dim=1) >= threshold
        answers = [label if known else None for label, known in zip(found.labels, sure.tolist(), strict=True)]
    return found._replace(
        probabilities=probabilities,
        match=match,
        label_sets=sets,
        answers=answers,
        usual=calibration.usual(evidence.means),
    )
