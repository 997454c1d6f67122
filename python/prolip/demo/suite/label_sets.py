"""Calibrate the groups of emoji on validation emoji, and measure on held-out ones what can be decided by that.

N images, C groups, K prompts per group, D dimensions.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from prolip.decisions.calibration import Calibration, Evidence, Subject, fit_calibration
from prolip.decisions.reliability import item_losses, reliability_curve
from prolip.decisions.selective import risk_curve
from prolip.demo.suite.emoji_samples import EmbeddedCaptions, LabelledImages, codes, evenly_spaced
from prolip.demo.suite.measure_sets import ClassPrompts
from prolip.demo.suite.results import DecidedImage, DecisionFigures, Range, Reliabilities, RiskCurve, SetDecisions
from prolip.gaussian import concatenate
from prolip.metrics.prompts import fill_templates
from prolip.metrics.statistics import (
    Statistic,
    auroc,
    bootstrap,
    equal_mass_error,
    percentile_interval,
    ratio,
    resample,
    value_of,
)
from prolip.pretrained.classify import Similarity, weigh

GUARANTEE, MAX_ERROR = 0.9, 0.2
NUM_EXAMPLES = 6
_NUM_BINS = 10
_NUM_RESAMPLES = 400


class GroupDecisions(NamedTuple):
    """Decisions about N images."""

    evidence: Evidence
    truth: Tensor
    """i64 [N]"""
    correct: Tensor
    """bool [N]"""
    within: Tensor
    """bool [N, C], the label sets."""
    confidence: Tensor
    """f64 [N], the largest probability."""
    answered: Tensor
    """bool [N]"""
    uncertainty: Tensor
    """f64 [N], the images' total variance."""
    emoji: Tensor
    """i64 [N]: intervals resample emoji, because the designs of one tend to be right or wrong together."""

    def rows(self, places: Tensor) -> "GroupDecisions":
        """The decisions about some images."""
        return GroupDecisions(self.evidence.rows(places), *(tensor[places] for tensor in self[1:]))


def calibrate_groups(
    validation: Sequence[LabelledImages],
    captions: EmbeddedCaptions,
    prompts: ClassPrompts,
    similarity: Similarity,
    data: str,
) -> Calibration:
    """The model's calibration for the groups of emoji, on all validation images, which it was not trained on.

    `data` says where these are from. The caller names the model.

    Raises:
        UserError: there are too few images.
    """
    labels, templates = _words(prompts)
    images = concatenate([group.images for group in validation])
    truth = prompts.labels("group", [sample for group in validation for sample in group.samples])
    evidence = weigh(images, prompts.gaussian("group", captions), None, similarity)
    calibration, _ = fit_calibration(evidence, truth, Subject("", "", data, labels, templates))
    return calibration


def measure_decisions(
    calibration: Calibration,
    held_out: Sequence[LabelledImages],
    captions: EmbeddedCaptions,
    prompts: ClassPrompts,
    similarity: Similarity,
) -> DecisionFigures:
    """Measure label sets, "don't know", doubts and probabilities on held-out images.

    The calibration is on other images, with the same prompts.
    """
    samples = [sample for group in held_out for sample in group.samples]
    images = concatenate([group.images for group in held_out])
    ensembles = prompts.gaussian("group", captions)
    alone = weigh(images, ensembles, None, similarity)
    evidence = calibration.with_prior(alone)
    truth = prompts.labels("group", samples)
    confidence, answer = (evidence.logits.double() / calibration.temperature).softmax(dim=1).max(dim=1)
    decided = GroupDecisions(
        evidence=evidence,
        truth=truth,
        correct=answer == truth,
        within=calibration.label_sets(evidence, GUARANTEE),
        confidence=confidence,
        answered=confidence >= calibration.abstention(MAX_ERROR).threshold,
        uncertainty=images.total_var.double(),
        emoji=codes([sample.codepoint for sample in samples]),
    )
    set_of = torch.arange(len(held_out)).repeat_interleave(torch.tensor([len(group.samples) for group in held_out]))
    parts = [("", decided)] + [
        (group.name, decided.rows((set_of == place).nonzero().flatten())) for place, group in enumerate(held_out)
    ]
    risk, difference = _risk(decided)
    return DecisionFigures(
        guarantee=GUARANTEE,
        max_error=MAX_ERROR,
        num_labels=len(calibration.labels),
        num_fitted=len(calibration.fitted.correct),
        num_held=len(calibration.held.correct),
        temperature=calibration.temperature,
        sets=[_set_decisions(name, some) for name, some in parts],
        risk=risk,
        auroc_difference=difference,
        reliability=[
            _reliability("own scale", decided, alone.logits),
            _reliability("calibrated", decided, evidence.logits / calibration.temperature),
        ],
        examples=_examples(held_out[0], parts[1][1], calibration.labels),
    )


def _words(prompts: ClassPrompts) -> tuple[list[str], list[str]]:
    """The groups in words, and the templates that make the prompts of each of them."""
    ensembles = prompts.texts("group")
    labels = [ensemble[0] for ensemble in ensembles]
    templates = [prompt.replace(labels[0], "{}") for prompt in ensembles[0]]
    assert fill_templates(templates, labels) == ensembles, "each group has its prompts by the same templates"
    return labels, templates


# ---------------------------------------------------------------------------------------------------------------------
# Figures
# ---------------------------------------------------------------------------------------------------------------------


def _range(value: float, draws: Tensor) -> Range:
    """A figure with the range of 95 % of its draws."""
    return Range(**percentile_interval(value, draws)._asdict())


def _draws(statistic: Statistic, emoji: Tensor, *items: Tensor) -> tuple[float, Tensor]:
    """A statistic of items, and the same on resamples of emoji, f64 [resamples]."""
    distinct, code = torch.unique(emoji, return_inverse=True)

    def of_emoji(_: Tensor, counts: Tensor) -> Tensor:
        return statistic(*items, counts[:, code])

    return value_of(statistic, *items), resample(of_emoji, distinct, num_resamples=_NUM_RESAMPLES)


def _mean(emoji: Tensor, items: Tensor, among: Tensor | None = None) -> Range:
    """The mean of items, or of those that are `among` some, with its interval over resamples of emoji."""
    distinct, code = torch.unique(emoji, return_inverse=True)
    counted = torch.ones_like(items, dtype=torch.float64) if among is None else among.double()
    parts, sizes = (
        torch.zeros(len(distinct), dtype=torch.float64).index_add_(0, code, values)
        for values in (items.double() * counted, counted)
    )
    return Range(**bootstrap(ratio, parts, sizes, num_resamples=_NUM_RESAMPLES)._asdict())


def _set_decisions(name: str, some: GroupDecisions) -> SetDecisions:
    covered = some.within.gather(1, some.truth[:, None])[:, 0]
    return SetDecisions(
        name=name,
        num_pictures=len(some.truth),
        right=_mean(some.emoji, some.correct),
        covered=_mean(some.emoji, covered),
        size=_mean(some.emoji, some.within.sum(dim=1)),
        answered=_mean(some.emoji, some.answered),
        wrong=_mean(some.emoji, ~some.correct, among=some.answered),  # NaN if none is answered
    )


def _risk(decided: GroupDecisions) -> tuple[list[RiskCurve], Range]:
    """Curves and AUROC by the largest probability and by the image's variance, and the difference of these."""
    doubts = {"largest probability": 1 - decided.confidence, "image's uncertainty": decided.uncertainty}
    curves, draws = [], []
    for name, doubt in doubts.items():
        answered, wrong = risk_curve(doubt, decided.correct)
        value, resamples = _draws(auroc, decided.emoji, doubt, ~decided.correct)
        auroc_range = _range(value, resamples)
        curves.append(RiskCurve(name=name, answered=answered.tolist(), wrong=wrong.tolist(), auroc=auroc_range))
        draws.append(resamples)
    return curves, _range(curves[1].auroc.value - curves[0].auroc.value, draws[1] - draws[0])


def _reliability(name: str, decided: GroupDecisions, logits: Tensor) -> Reliabilities:
    confidence, answer = logits.double().softmax(dim=1).max(dim=1)
    correct = answer == decided.truth
    nll, _ = item_losses(logits, decided.truth)
    mean_confidence, accuracy = reliability_curve(confidence, correct, _NUM_BINS)
    return Reliabilities(
        name=name,
        calibration_error=_range(*_draws(equal_mass_error, decided.emoji, confidence, correct)),
        nll=_mean(decided.emoji, nll),
        confidence=mean_confidence.tolist(),
        accuracy=accuracy.tolist(),
    )


def _examples(group: LabelledImages, decided: GroupDecisions, labels: Sequence[str]) -> list[DecidedImage]:
    """Images at even distances in their order by probability, the surest first: chosen by rank, never by hand."""
    order = decided.confidence.argsort(descending=True, stable=True).tolist()
    examples = []
    for place in (order[rank] for rank in evenly_spaced(len(order), NUM_EXAMPLES)):
        sample = group.samples[place]
        ranked = decided.evidence.logits[place].argsort(descending=True, stable=True).tolist()
        examples.append(
            DecidedImage(
                set_name=group.name,
                key=sample.key,
                emoji=sample.emoji,
                name=sample.name,
                label=labels[int(decided.truth[place])],
                probability=float(decided.confidence[place]),
                label_set=[labels[label] for label in ranked if decided.within[place, label]],
                answered=bool(decided.answered[place]),
            )
        )
    return examples
