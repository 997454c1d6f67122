"""A model's answers on labelled images, calibrations on folds of these images, and scores of doubt about each image.

N images, M other images, C labels, D dimensions.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from prolip.decisions.calibration import Calibration, Evidence, Subject, fit_calibration
from prolip.decisions.config import Score
from prolip.decisions.fitting import fit_logistic
from prolip.decisions.selective import expected_probabilities, logit_scores, neighbour_distance
from prolip.errors import UserError
from prolip.evaluation.classification import embed_labelled, embed_prompts
from prolip.evaluation.config import DecisionsOptions
from prolip.evaluation.datasets import DataSet
from prolip.gaussian import Gaussian
from prolip.metrics.zero_shot import aggregate_prompts
from prolip.pretrained.classify import weigh
from prolip.pretrained.model import Model

SCORES: tuple[Score, ...] = ("lac", "aps", "raps", "csd")
GUARANTEES = (0.8, 0.9, 0.95)
ERROR_LIMITS = (0.05, 0.1, 0.2)
BASELINE = "max probability"
"""The score that the others are compared with."""
FREQUENCIES = "label frequencies"
"""Name of the probabilities that also know how frequent labels are."""
_RIDGE = 1e-3
_PER_FOLD = 4
"""Images that a fold needs."""
_OTHERS = 7
"""Images that the other folds need: so many does a calibration divide."""


class Answered(NamedTuple):
    """A model's answers on labelled images."""

    images: Gaussian
    """[N, D]"""
    classes: Gaussian
    """[C, D], the even ensemble of each label's prompts."""
    truth: Tensor
    """i64 [N]"""
    evidence: Evidence
    folds: Tensor
    """i64 [N], the fold of each image."""

    @property
    def correct(self) -> Tensor:
        """Whether the most probable label is right, bool [N]."""
        return self.evidence.logits.argmax(dim=1) == self.truth


class Decided(NamedTuple):
    """Results for each image of calibrations on the other folds."""

    logits: Tensor
    """f64 [N, C], divided by the temperature."""
    sets: dict[tuple[Score, float], Tensor]
    """bool [N, C], label sets by score and guarantee."""
    answered: dict[float, Tensor]
    """bool [N], by limit of the share of wrong answers."""


class Folded(NamedTuple):
    """Decisions about each image, by calibrations on the other folds."""

    even: Decided
    """If all labels are equally frequent."""
    with_frequencies: Decided
    """With the labels' frequencies in the other folds; 90 % sets by `lac` alone."""
    calibrations: list[Calibration]
    """One per fold, with the score `lac`, for labels that are equally frequent."""


def answer_images(model: Model, data: DataSet, options: DecisionsOptions) -> Answered:
    """Embed images and labels, and draw the folds; errors as for `measure_decisions`."""
    images, truth = embed_labelled(model, data, options.batch_size)
    needed = max(_PER_FOLD * options.num_folds, math.ceil(_OTHERS * options.num_folds / (options.num_folds - 1)))
    if len(truth) < needed:
        raise UserError(
            f"num_folds is {options.num_folds}: {data.source} has {len(truth)} labelled images, and that many folds "
            f"need at least {needed}"
        )
    prompts = embed_prompts(model, data.classnames, data.templates)
    classifier = aggregate_prompts(prompts)
    order = torch.randperm(len(truth), generator=torch.Generator().manual_seed(options.seed))
    folds = torch.empty_like(order)
    folds[order] = torch.arange(len(order)) % options.num_folds
    evidence = weigh(images, prompts, None, model.similarity)
    return Answered(images, Gaussian(classifier.weight, classifier.var.log()), truth, evidence, folds)


def fold_calibrations(model: Model, data: DataSet, answered: Answered, options: DecisionsOptions) -> Folded:
    """Calibrate on all folds but one, and decide about the images of that one, for every fold.

    Without a sampled distance, there are no sets of the score `csd`.
    """
    logits = answered.evidence.logits
    scores = [score for score in SCORES if score != "csd" or answered.evidence.distance is not None]
    all_sets = [(score, guarantee) for score in scores for guarantee in GUARANTEES]
    one_set: list[tuple[Score, float]] = [("lac", 0.9)]
    even, with_frequencies = (
        Decided(
            torch.empty_like(logits, dtype=torch.float64),
            {key: torch.zeros_like(logits, dtype=torch.bool) for key in some},
            {limit: torch.zeros(len(logits), dtype=torch.bool) for limit in ERROR_LIMITS},
        )
        for some in (all_sets, one_set)
    )
    subject = Subject(model.name, "", f"the other folds of {data.source}", data.classnames, data.templates)
    calibrations = []
    for fold in range(options.num_folds):
        inside, outside = ((answered.folds == fold) == side for side in (True, False))
        here, there = answered.evidence.rows(inside), answered.evidence.rows(outside)
        for score in scores:
            # An even prior, so that scores depend on the model's answers, and not on how frequent labels are.
            fitted, _ = fit_calibration(
                there, answered.truth[outside], subject, score=score, prior="even", seed=options.seed
            )
            for guarantee in GUARANTEES:
                even.sets[score, guarantee][inside] = fitted.label_sets(here, guarantee)
            if score == scores[0]:
                calibrations.append(fitted)
        labelled, _ = fit_calibration(there, answered.truth[outside], subject, score="lac", seed=options.seed)
        with_frequencies.sets["lac", 0.9][inside] = labelled.label_sets(labelled.with_prior(here), 0.9)
        for fitted, decided in ((calibrations[-1], even), (labelled, with_frequencies)):
            decided.logits[inside] = fitted.with_prior(here).logits.double() / fitted.temperature
            confidence = decided.logits[inside].softmax(dim=1).amax(dim=1)
            for limit, given in decided.answered.items():
                given[inside] = confidence >= fitted.abstention(limit).threshold
    return Folded(even, with_frequencies, calibrations)


def find_doubts(model: Model, answered: Answered, folded: Folded, known: Gaussian | None) -> dict[str, Tensor]:
    """Return every score of doubt about each image, f64 [N]; everything fitted comes from the other folds.

    `known` are images that the model was trained on; None for the images of the other folds.
    """
    doubts = plain_doubts(model, answered.images, answered.classes)
    doubts["calibrated probability"] = 1 - folded.even.logits.softmax(dim=1).amax(dim=1)
    features = doubts[BASELINE].clamp(1e-9, 1 - 1e-9).logit()[:, None]
    if model.has_variances:
        features = torch.cat([features, answered.images.log_var.double().logsumexp(dim=1)[:, None]], dim=1)
    mahalanobis, near, combined = (torch.zeros(len(answered.truth), dtype=torch.float64) for _ in range(3))
    for fold, calibration in enumerate(folded.calibrations):
        inside = answered.folds == fold
        means = answered.images.mean[inside]
        mahalanobis[inside] = calibration.known.distance(means)
        near[inside] = neighbour_distance(means, _known_means(answered, known, fold))
        weights = fit_logistic(features[~inside], ~answered.correct[~inside], ridge=_RIDGE)
        combined[inside] = (features[inside] @ weights[:-1] + weights[-1]).sigmoid()
    doubts |= {"Mahalanobis distance": mahalanobis, "distance to neighbours": near}
    return {**doubts, "probability and variance": combined} if model.has_variances else doubts


def doubts_elsewhere(
    model: Model, answered: Answered, folded: Folded, images: Gaussian, known: Gaussian | None
) -> dict[str, Tensor]:
    """Return scores of doubt about M images from elsewhere, f64 [M], with the calibration of the first fold."""
    doubts, calibration = plain_doubts(model, images, answered.classes), folded.calibrations[0]
    return doubts | {
        "Mahalanobis distance": calibration.known.distance(images.mean),
        "distance to neighbours": neighbour_distance(images.mean, _known_means(answered, known, 0)),
    }


def plain_doubts(model: Model, images: Gaussian, classes: Gaussian) -> dict[str, Tensor]:
    """Return the scores that need no labelled images; scores of variances only for a model that has them.

    Epistemic variances are already in the probabilities, and there is no distance then.
    """
    prompts = Gaussian(classes.mean[:, None], classes.log_var[:, None])
    evidence = weigh(images, prompts, None, model.similarity)
    doubts = logit_scores(evidence.logits)
    if model.has_variances:
        doubts |= {"image's variance": images.total_var.double()}
    if evidence.distance is not None and model.has_variances:
        answer = evidence.logits.argmax(dim=1)
        expected = expected_probabilities(images, classes, model.logit_scale)
        doubts |= {
            "answer's variance": classes.total_var.double()[answer],
            "distance to the answer": evidence.distance.double().gather(1, answer[:, None])[:, 0],
            "probability over samples": 1 - expected.amax(dim=1),
        }
    return doubts


def _known_means(answered: Answered, known: Gaussian | None, fold: int) -> Tensor:
    return answered.images.mean[answered.folds != fold] if known is None else known.mean
