"""Zero-shot classification by a model's own similarity scale and bias, and the decisions that a calibration allows.

N images, C labels, K templates, D dimensions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from prolip.calibration.calibration import Calibration, Evidence
from prolip.calibration.fitting import log_prior
from prolip.data.class_names import class_places, listed
from prolip.errors import UserError
from prolip.gaussian import Gaussian, csd
from prolip.metrics.zero_shot import Classifier, aggregate_prompts, weighted_sum, zero_shot_logits


class Classification(NamedTuple):
    """Images classified by labels."""

    labels: list[str]
    """N: each image's most probable label."""
    probabilities: Tensor
    """[N, C], rows summing to 1: of a label, if exactly one is right."""
    uncertainty: Tensor
    """[N], total variance of the images."""
    match: Tensor | None
    """[N, C]: probability that image and label match, each pair on its own. None without a bias, as in CLIP."""
    label_uncertainty: Tensor
    """[C], total variance of the labels, averaged over the templates."""
    label_sets: list[list[str]] | None = None
    """N sets, the most probable label first. Each has the right label with the probability `guarantee`, if given."""
    answers: list[str | None] | None = None
    """N labels, None for "don't know". At most the share `max_error`, if given, is wrong, in 19 of 20 calibrations."""
    usual: Tensor | None = None
    """f64 [N], in (0, 1]: share of calibration images at least as far from the known ones. A small one is out of
    distribution, which no guarantee covers. None without `guarantee` and `max_error`."""


class Decide(NamedTuple):
    """What to decide with a calibration."""

    guarantee: float | None = None
    """Probability that a label set contains the right label; None for no sets."""
    per_label: bool = False
    """Whether the guarantee must hold for each label's images."""
    max_error: float | None = None
    """Maximum share of wrong ones among the answers; None for no answers."""

    @property
    def asked(self) -> bool:
        """Whether anything is."""
        return self.guarantee is not None or self.max_error is not None or self.per_label


class Similarity(NamedTuple):
    """How a model turns the Gaussians of an image and a text into a logit."""

    logit_scale: float
    logit_bias: float | None


NOTHING = Decide()


def check_labels(labels: Sequence[str]) -> None:
    """Refuse labels that are empty, a string, repeated, or no strings."""
    if isinstance(labels, str):
        raise UserError("labels", "must be a list", f"{labels!r}")
    if len(labels) == 0:  # also of an array
        raise UserError("labels", "give at least one")
    for place, label in enumerate(labels):
        if not isinstance(label, str):
            raise UserError(f"labels[{place}]", "must be a text", f"a {type(label).__name__}")
    twice = [label for label, count in Counter(labels).items() if count > 1]
    if twice:
        raise UserError("labels", "each must be unique", f"{twice[0]!r} more than once")


def weighted_classifier(prompts: Gaussian, weights: Tensor) -> Classifier:
    """Sum of weight * mean, not normalised, and of weight^2 * variance, in float32 at least.

    For re-weighted prompts (BPRW, docs/specification.md, section 5).

    Args:
        prompts: [C, K, D], unit means.
        weights: [C, K], each row at least 0 and summing to 1.
    """
    expected = prompts.mean.shape[:2]
    if weights.shape != expected:
        raise UserError("prompt_weights", f"one per label and template, {list(expected)}", list(weights.shape))
    prompts = prompts.at_least_float32()
    weights = weights.to(prompts.mean)
    return Classifier(weighted_sum(weights, prompts.mean), weighted_sum(weights.square(), prompts.var))


def weigh(images: Gaussian, prompts: Gaussian, weights: Tensor | None, similarity: Similarity) -> Evidence:
    """The scores of embedded images for embedded labels.

    A pair's logit is that of training: `scale * (mean . mean - (total_var + total_var) / 2) + bias`. In the softmax
    over labels, bias and the image's variance cancel and are left out.

    Args:
        images: [N, D], unit means.
        prompts: [C, K, D], unit means.
        weights: [C, K], see `weighted_classifier`; None for the uniform ensemble.
        similarity: the model's.
    """
    classifier = aggregate_prompts(prompts) if weights is None else weighted_classifier(prompts, weights)
    classes = Gaussian(classifier.weight, classifier.var.log())
    scale, bias = similarity.logit_scale, similarity.logit_bias
    logits = zero_shot_logits(images.mean, classifier.weight, classifier.total_var, logit_scale=scale)
    pairs = None if bias is None else logits - 0.5 * scale * images.total_var[:, None] + bias
    return Evidence(logits, csd(images, classes), pairs, images.mean)


def classification(
    images: Gaussian,
    prompts: Gaussian,
    labels: Sequence[str],
    *,
    weights: Tensor | None,
    similarity: Similarity,
    prior: Sequence[float] | Tensor | None = None,
    decide: Decide = NOTHING,
    calibration: Calibration | None = None,
) -> Classification:
    """Classify embedded images.

    The probabilities are the softmax over labels, even after training with a sigmoid: if pairs are independent and
    exactly one matches, P(c) ∝ exp(logit_c).

    Args:
        images, prompts, weights, similarity: see `weigh`.
        labels: C labels.
        prior: C shares or counts; None for labels that are equally frequent.
        decide: checked by `check_decision`.
        calibration: the model's, for these labels. Decisions use its prior.

    Raises:
        UserError: the weights have the wrong shape, or the prior is invalid (`prolip.calibration.log_prior`).
    """
    evidence = weigh(images, prompts, weights, similarity)
    if prior is not None:
        evidence = evidence.with_prior(log_prior(prior, len(labels)))
    if calibration is not None and decide.asked:
        evidence = calibration.with_prior(evidence)
    found = Classification(
        labels=[labels[place] for place in evidence.logits.argmax(dim=1).tolist()],
        probabilities=evidence.logits.softmax(dim=1),
        uncertainty=images.total_var,
        match=None if evidence.pair_logits is None else evidence.pair_logits.sigmoid(),
        label_uncertainty=prompts.total_var.mean(dim=1),
    )
    return decided(found, labels, evidence, calibration, decide) if calibration is not None and decide.asked else found


def check_limits(decide: Decide) -> None:
    """Check that guarantee and limit are between 0 and 1, and that `per_label` has a guarantee."""
    if decide.per_label and decide.guarantee is None:
        raise UserError("per_label", "needs guarantee")
    for name in ("guarantee", "max_error"):
        value = getattr(decide, name)
        if value is not None and not 0 < value < 1:
            raise UserError(name, "must be between 0 and 1", value)


def require_calibration(calibration: Calibration | None) -> Calibration:
    """A model's calibration; a UserError if it has none."""
    if calibration is None:
        raise UserError("guarantee", "needs a calibrated model, as max_error does; see prolip calibrate")
    return calibration


def check_subject(calibration: Calibration, labels: Sequence[str], templates: Sequence[str]) -> None:
    """Check that a calibration is for these labels, in this order, and for these templates.

    Labels may be spelled otherwise (`class_places`); prompts use the calibration's spelling.
    """
    names, known = calibration.labels, calibration.subject.templates
    if class_places(labels, names) != list(range(len(names))):
        raise UserError("labels", f"must be all of the calibration's, in its order: {listed(names)}", listed(labels))
    if list(templates) != known:
        raise UserError("templates", f"must be those of the calibration, {known}", list(templates))


def check_decision(
    decide: Decide,
    calibration: Calibration | None,
    labels: Sequence[str],
    templates: Sequence[str] | None,
    prompt_weights: Tensor | None,
    prior: Sequence[float] | Tensor | None,
) -> tuple[Sequence[str], Sequence[str]]:
    """Check that the calibration allows the decision; returns its labels, as it spells them, and templates.

    Raises:
        UserError: as for `check_limits`; there is no calibration, or one for other labels or prompts; or weights or a
            prior are given.
    """
    check_limits(decide)
    calibration = require_calibration(calibration)
    if prompt_weights is not None:
        raise UserError("prompt_weights", "not with guarantee or max_error, whose calibration is for even weights")
    if prior is not None:
        raise UserError("prior", "not with guarantee or max_error, whose calibration has its own")
    known = calibration.subject.templates
    check_subject(calibration, labels, known if templates is None else templates)
    return calibration.labels, known


def decided(
    found: Classification, labels: Sequence[str], evidence: Evidence, calibration: Calibration, decide: Decide
) -> Classification:
    """With calibrated probabilities and the requested decisions."""
    probabilities = (evidence.logits / calibration.temperature).softmax(dim=1)
    match = found.match
    if evidence.pair_logits is not None and calibration.pairs is not None:
        match = (calibration.pairs.factor * evidence.pair_logits + calibration.pairs.bias).sigmoid()
    sets: list[list[str]] | None = None
    if decide.guarantee is not None:
        within = calibration.label_sets(evidence, decide.guarantee, per_label=decide.per_label)
        order = probabilities.argsort(dim=1, descending=True, stable=True).tolist()
        sets = [
            [labels[place] for place in places if inside[place]]
            for places, inside in zip(order, within.tolist(), strict=True)
        ]
    answers: list[str | None] | None = None
    if decide.max_error is not None:
        threshold = calibration.abstention(decide.max_error).threshold
        sure = calibration.confidence(evidence) >= threshold
        answers = [label if known else None for label, known in zip(found.labels, sure.tolist(), strict=True)]
    return found._replace(
        probabilities=probabilities,
        match=match,
        label_sets=sets,
        answers=answers,
        usual=calibration.usual(evidence.means),
    )
