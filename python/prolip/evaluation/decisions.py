"""Suite `decisions`: wrong answers, calibrated probabilities, label sets, out-of-distribution images.

N images, M out-of-distribution images, C labels, D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from prolip.calibration.calibration import Calibration, Evidence, Subject, fit_calibration
from prolip.calibration.config import Prior, Score
from prolip.calibration.fitting import class_densities, fit_logistic
from prolip.datasets.data_set import DataSet, embed_set, name_sources, open_dataset
from prolip.errors import UserError
from prolip.evaluation.classification import class_opener, embed_labelled, embed_prompts
from prolip.evaluation.config import DecisionsOptions
from prolip.evaluation.evaluate import evaluate_data
from prolip.evaluation.results import Chart, Row, RowId, SuiteResult, TaskCache, TaskResult, difference, row_of_items
from prolip.evaluation.stored import StoredTexts, is_stored, open_data, open_model
from prolip.gaussian import Gaussian
from prolip.inference.classify import weigh
from prolip.inference.model import Model
from prolip.metrics.reliability import item_losses, reliability_curve
from prolip.metrics.uncertainty_scores import expected_probabilities, logit_scores, neighbour_distance, risk_curve
from prolip.metrics.zero_shot import aggregate_prompts
from prolip.report.charts import Line, line_chart
from prolip.report.words import spoken

SCORES: tuple[Score, ...] = ("lac", "csd")
GUARANTEES = (0.8, 0.9, 0.95)
ERROR_LIMITS = (0.05, 0.1, 0.2)
BASELINE = "max_probability"
NOISE = "noise"
_NUM_NOISE = 500
_RIDGE = 1e-3
_DRAWN = (BASELINE, "image_variance", "probability_and_variance", "distance_to_neighbours", "class_gaussians")
_MAIN = (
    "image_variance",
    "probability_over_samples",
    "probability_and_variance",
    "distance_to_neighbours",
    "class_gaussians",
    "probability_and_class_gaussians",
)
"""Those whose differences from `BASELINE` are main figures."""
_MAIN_OOD = ("image_variance", "mahalanobis_distance", "distance_to_neighbours")
Scored = Mapping[tuple[str, str], Tensor]
"""Of each image, f64 [N], by uncertainty score and, of another model, its name."""


class Answered(NamedTuple):
    """On labelled images."""

    model: Model
    images: Gaussian
    """[N, D]"""
    classes: Gaussian
    """[C, D], the even ensemble of each label's prompts."""
    truth: Tensor
    """i64 [N]"""
    evidence: Evidence
    folds: Tensor
    """i64 [N], of each image."""
    seed: int
    subject: Subject

    @property
    def correct(self) -> Tensor:
        """Whether the most probable label is right, bool [N]."""
        return self.evidence.logits.argmax(dim=1) == self.truth


class Decided(NamedTuple):
    """About each image, by calibrations on the other folds."""

    logits: Tensor
    """f64 [N, C], divided by the temperature."""
    sets: dict[tuple[Score, float], Tensor]
    """bool [N, C], by score and guarantee."""
    answered: dict[float, Tensor]
    """bool [N], by limit of the share of wrong answers."""
    calibrations: Sequence[Calibration] = ()
    """One per fold, with the score `lac`."""


# ---- The suite ------------------------------------------------------------------------------------------------------


def run_decisions(model: Model, options: DecisionsOptions, cache: TaskCache) -> SuiteResult:
    """Measure every data set.

    Raises:
        UserError: no data set could be measured, or out-of-distribution images cannot be read.
        DataError: out-of-distribution images cannot be read.
    """
    sources = name_sources(options.out_of_distribution)
    if NOISE in sources:
        raise UserError("out_of_distribution", f"must not be called {NOISE}, the name of random pixels", sources[NOISE])
    beside = {
        name: open_model(source, tokenizer=options.tokenizer, device=options.device, precision=options.precision)
        for name, source in name_sources(options.beside).items()
    }
    known = None if options.known is None else _embed(model, "known", options.known, options)
    others: dict[str, list[Gaussian]] = {}
    for name, source in sources.items():
        others[name] = [_embed(one, "out_of_distribution", source, options) for one in (model, *beside.values())]
    if not any(isinstance(one.network, StoredTexts) for one in (model, *beside.values())):
        others[NOISE] = [_embed_noise(one, options) for one in (model, *beside.values())]
    measure = partial(measure_decisions, others=others, known=known, beside=beside)
    read = [list(others), *others.values(), known, [(name, other.fingerprint()) for name, other in beside.items()]]
    opened = class_opener(options, options.templates)
    return evaluate_data("decisions", model, options, options.data, cache, opened, measure, *read)


def _embed(model: Model, option: str, source: str, options: DecisionsOptions) -> Gaussian:
    if is_stored(source):
        return embed_set(model, open_data(source), options.batch_size).gaussian
    folder = Path(source)
    published = folder.is_dir() and any(folder.rglob("*.tar"))
    images = open_dataset(source).shards if published else source
    try:
        return model.encode_images(images, batch_size=options.batch_size, progress=False, store=options.store)
    except UserError as error:
        raise UserError(option, f"{source}: {error}") from error


def _embed_noise(model: Model, options: DecisionsOptions) -> Gaussian:
    draws, shape = torch.Generator().manual_seed(options.seed), (3, *model.preprocess.sides)
    pixels = (torch.randint(256, shape, generator=draws, dtype=torch.uint8) for _ in range(_NUM_NOISE))
    return model.encode_images(pixels, batch_size=options.batch_size, progress=False)


def measure_decisions(
    model: Model,
    data: DataSet,
    options: DecisionsOptions,
    *,
    others: Mapping[str, Sequence[Gaussian]],
    known: Gaussian | None,
    beside: Mapping[str, Model],
) -> TaskResult:
    """Measure one data set.

    Args:
        others: out-of-distribution images [M, D] by name, embedded by the model and by each one beside it.
        known: images that the model was trained on; None for the other folds.
        beside: other models by name; their scores of the model's answers are compared with its own.
    """
    own = answer_images(model, data, options)
    right, truth = own.correct, own.truth
    decided, frequent = decide(own), decide(own, "labelled", [("lac", 0.9)])
    scores = _of("", fold_scores(own, decided, known))
    seen = {name: answer_images(other, data, options) for name, other in beside.items()}
    for name, one in seen.items():
        scores |= _of(name, plain_scores(one, one.images))
    accuracy = row_of_items(RowId("accuracy"), right, main=True)
    scaled = {("temperature", ""): decided.logits, ("label_frequencies", ""): frequent.logits}
    scaled |= {("own_scale", name): one.evidence.logits for name, one in seen.items()}
    frequent_right = frequent.logits.argmax(dim=1) == truth
    rows = [
        accuracy,
        *score_rows(scores, right),
        *probability_rows(own.evidence.logits, scaled, truth),
        *set_rows(decided, truth, right),
        *_accuracy_rows(accuracy, RowId("accuracy", by="label_frequencies"), frequent_right, main=True),
        *set_rows(frequent, truth, frequent_right, "label_frequencies"),
    ]
    for name, one in seen.items():
        within = decide(one, keys=[("lac", 0.9)]).sets["lac", 0.9]
        rows += _accuracy_rows(accuracy, RowId("accuracy", of=name), one.correct)
        rows += _set_pair(RowId("", by="lac", of=name, at=0.9), within, truth)
    for other, (images, *embedded) in others.items():
        there = plain_scores(own, images) | distance_scores(decided.calibrations[0], images.mean, _known(own, known, 0))
        outside = _of("", there)
        for (name, one), its in zip(seen.items(), embedded, strict=True):
            outside |= _of(name, plain_scores(one, its))
        columns = {}
        for score, values in outside.items():
            items = torch.cat([scores[score], values])
            columns[score] = (items, torch.arange(len(items)) >= len(right))
        rows += rows_by_score(RowId("ood_auroc", other=other), columns, "auroc", _MAIN_OOD)
    note = f"{len(truth):,} images of {len(data.classnames):,} labels, in {options.num_folds} folds"
    charts = decision_charts(scores, own.evidence.logits, decided.logits, right)
    return TaskResult(rows=rows, notes=[note], charts=charts)


# ---- Answers, decisions, scores -------------------------------------------------------------------------------------


def answer_images(model: Model, data: DataSet, options: DecisionsOptions) -> Answered:
    """Embed images and labels, and draw the folds."""
    images, truth = embed_labelled(model, data, options.batch_size)
    prompts = embed_prompts(model, data.classnames, data.templates)
    classifier = aggregate_prompts(prompts)
    order = torch.randperm(len(truth), generator=torch.Generator().manual_seed(options.seed))
    folds = torch.empty_like(order)
    folds[order] = torch.arange(len(order)) % options.num_folds
    subject = Subject(model.name, "", f"the other folds of {data.source}", data.classnames, data.templates)
    evidence = weigh(images, prompts, None, model.similarity)
    classes = Gaussian(classifier.weight, classifier.var.log())
    return Answered(model, images, classes, truth, evidence, folds, options.seed, subject)


def decide(answered: Answered, prior: Prior = "even", keys: Sequence[tuple[Score, float]] | None = None) -> Decided:
    """Decide about each fold by calibrations on the others.

    Args:
        prior: label frequencies of the calibrations.
        keys: score and guarantee of the label sets; None for all that the model allows.
    """
    logits, truth = answered.evidence.logits, answered.truth
    if keys is None:
        keys = [(score, guarantee) for score in SCORES for guarantee in GUARANTEES]
    calibrated = torch.empty_like(logits, dtype=torch.float64)
    sets = {key: torch.zeros_like(logits, dtype=torch.bool) for key in keys}
    given = {limit: torch.zeros(len(logits), dtype=torch.bool) for limit in ERROR_LIMITS}
    calibrations = []
    for fold in range(int(answered.folds.max()) + 1):
        inside = answered.folds == fold
        there = answered.evidence.rows(~inside)
        for score in dict.fromkeys(score for score, _ in keys):
            fitted, _ = fit_calibration(
                there, truth[~inside], answered.subject, score=score, prior=prior, seed=answered.seed
            )
            here = fitted.with_prior(answered.evidence.rows(inside))
            for _, guarantee in (key for key in keys if key[0] == score):
                sets[score, guarantee][inside] = fitted.label_sets(here, guarantee)
            if score == "lac":
                calibrations.append(fitted)
                calibrated[inside] = here.logits.double() / fitted.temperature
                for limit, answers in given.items():
                    answers[inside] = fitted.confidence(here) >= fitted.abstention(limit).threshold
    return Decided(calibrated, sets, given, calibrations)


def plain_scores(answered: Answered, images: Gaussian) -> dict[str, Tensor]:
    """Those that need no labelled images, f64 [M]; of variances only if the model has them."""
    model, classes = answered.model, answered.classes
    evidence = weigh(images, classes.unflatten(-1, 1), None, model.similarity)
    scores = logit_scores(evidence.logits)
    if model.has_variances:
        scores["image_variance"] = images.total_var.double()
        answer = evidence.logits.argmax(dim=1)
        scores["answer_variance"] = classes.total_var.double()[answer]
        scores["distance_to_answer"] = evidence.distance.double().gather(1, answer[:, None])[:, 0]
        expected = expected_probabilities(images, classes, model.logit_scale)
        scores["probability_over_samples"] = 1 - expected.amax(dim=1)
    return scores


def distance_scores(calibration: Calibration, means: Tensor, known: Tensor) -> dict[str, Tensor]:
    """From a calibration's images and from known ones, of means [M, D], f64 [M]."""
    return {
        "mahalanobis_distance": calibration.known.distance(means),
        "distance_to_neighbours": neighbour_distance(means, known),
    }


def fold_scores(answered: Answered, decided: Decided, known: Gaussian | None) -> dict[str, Tensor]:
    """Every uncertainty score of each image, f64 [N].

    `known` are images that the model was trained on; None for the other folds. `class_gaussians` is the log odds
    against the answer by `class_densities` of the other folds. Combined with the largest probability: the mean of both
    probabilities, as in ICPE's released code.
    """
    scores = plain_scores(answered, answered.images)
    scores["calibrated_probability"] = 1 - decided.logits.softmax(dim=1).amax(dim=1)
    features = scores[BASELINE].clamp(1e-9, 1 - 1e-9).logit()[:, None]
    if answered.model.has_variances:
        features = torch.cat([features, answered.images.log_var.double().logsumexp(dim=1)[:, None]], dim=1)
    means, answer = answered.images.mean, answered.evidence.logits.argmax(dim=1, keepdim=True)
    folded: dict[str, Tensor] = {}
    for fold, calibration in enumerate(decided.calibrations):
        inside = answered.folds == fold
        here = distance_scores(calibration, means[inside], _known(answered, known, fold))
        densities = class_densities(
            means[inside], means[~inside], answered.truth[~inside], answered.evidence.logits.shape[1]
        )
        others = densities.scatter(1, answer[inside], -torch.inf).logsumexp(dim=1)
        odds = others - densities.gather(1, answer[inside])[:, 0]
        here["class_gaussians"] = odds
        here["probability_and_class_gaussians"] = (scores[BASELINE][inside] + odds.sigmoid()) / 2
        if answered.model.has_variances:
            weights = fit_logistic(features[~inside], ~answered.correct[~inside], ridge=_RIDGE)
            here["probability_and_variance"] = (features[inside] @ weights[:-1] + weights[-1]).sigmoid()
        for name, values in here.items():
            folded.setdefault(name, torch.zeros(len(inside), dtype=torch.float64))[inside] = values
    return scores | folded


def _known(answered: Answered, known: Gaussian | None, fold: int) -> Tensor:
    return answered.images.mean[answered.folds != fold] if known is None else known.mean


def _of(model: str, scores: Mapping[str, Tensor]) -> dict[tuple[str, str], Tensor]:
    return {(name, model): score for name, score in scores.items()}


# ---- Rows and charts ------------------------------------------------------------------------------------------------


def rows_by_score(
    id: RowId,
    columns: Mapping[tuple[str, str], tuple[Tensor, Tensor]],
    statistic: str,
    main: Sequence[str] = (),
    baseline: str = BASELINE,
) -> list[Row]:
    """A statistic of each score's items and groups, and its difference from the baseline's; `main` for some.

    Scores are named by themselves and, of another model, its name.
    """
    auroc = statistic == "auroc"
    rows = [
        row_of_items(
            replace(id, by=by, of=of), items, groups, statistic=statistic, main=auroc and (by, of) == (baseline, "")
        )
        for (by, of), (items, groups) in columns.items()
    ]
    if statistic == "risk_coverage":  # on the same images, as of the excess
        return rows
    (first,) = (row for row in rows if (row.id.by, row.id.of) == (baseline, ""))
    return rows + [difference(first, row, main=row.id.by in main) for row in rows if row is not first]


def _accuracy_rows(accuracy: Row, id: RowId, correct: Tensor, *, main: bool = False) -> list[Row]:
    row = row_of_items(id, correct)
    return [row, difference(accuracy, row, main=main)]


def _set_pair(id: RowId, within: Tensor, truth: Tensor, *, main: bool = False) -> list[Row]:
    covered = within.gather(1, truth[:, None])[:, 0]
    measured = {"set_coverage": covered, "set_size": within.sum(dim=1)}
    return [row_of_items(replace(id, measure=measure), items, main=main) for measure, items in measured.items()]


def score_rows(scores: Scored, correct: Tensor) -> list[Row]:
    """How well each detects wrong answers, and its difference from the baseline."""
    wrong, right = ({name: (score, groups) for name, score in scores.items()} for groups in (~correct, correct))
    return [
        *rows_by_score(RowId("error_auroc"), wrong, "auroc", _MAIN),
        *rows_by_score(RowId("risk_coverage"), right, "risk_coverage"),
        *rows_by_score(RowId("excess_risk_coverage"), right, "excess_risk_coverage"),
    ]


def probability_rows(own: Tensor, others: Scored, truth: Tensor) -> list[Row]:
    """How well the softmax of logits [N, C] agrees with the labels, and how other logits change that."""
    found: list[list[Row]] = []
    for (by, of), logits in {("own_scale", ""): own, **others}.items():
        confidence, answer = logits.double().softmax(dim=1).max(dim=1)
        nll, brier = item_losses(logits, truth)
        id = RowId("calibration_error", by=by, of=of)
        found.append(
            [
                row_of_items(id, confidence, answer == truth, statistic="equal_mass_error", main=True),
                row_of_items(replace(id, measure="brier_score"), brier),
                row_of_items(replace(id, measure="negative_log_likelihood"), nll),
            ]
        )
    rows = [row for some in found for row in some]
    return rows + [difference(*pair) for some in found[1:] for pair in zip(found[0], some, strict=True)]


def set_rows(decided: Decided, truth: Tensor, correct: Tensor, by: str = "") -> list[Row]:
    """Coverage and size of label sets; share of answers within a limit of errors, and of errors among them.

    `truth` is i64 [N], `correct` bool [N]; `by` names the calibrations, by default after the sets' score.
    """
    rows: list[Row] = []
    for (score, guarantee), within in decided.sets.items():
        main = (score, guarantee, by) == ("lac", 0.9, "")
        rows += _set_pair(RowId("", by=by or score, at=guarantee), within, truth, main=main)
    for limit, given in decided.answered.items():
        rows.append(row_of_items(RowId("answered", by=by, at=limit), given))
        if bool(given.any()):
            rows.append(
                row_of_items(RowId("wrong_answers", by=by, at=limit), ~correct, given, statistic="mean_of_chosen")
            )
    return rows


def decision_charts(scores: Scored, before: Tensor, after: Tensor, correct: Tensor) -> list[Chart]:
    """Wrong answers by share answered, for each score f64 [N]; accuracy by confidence, for two logits [N, C]."""
    risk = {spoken(name): risk_curve(scores[name, ""], correct) for name in _DRAWN if (name, "") in scores}
    text = "Wrong answers among those given, if only the least uncertain images are answered."
    drawn = line_chart(
        "Risk and coverage", text, _lines(risk), x_label="share answered", y_scale="from zero", percent=True
    )
    return [
        Chart(title="wrong answers by share answered", text=text, svg=drawn),
        reliability_chart({"own scale": (before, correct), "temperature": (after, correct)}),
    ]


def reliability_chart(answers: Mapping[str, tuple[Tensor, Tensor]]) -> Chart:
    """Accuracy by confidence, for named pairs of logits [N, C] and whether the answers are right, bool [N]."""
    diagonal = torch.tensor([0.0, 1.0])
    curves = {"agreement": (diagonal, diagonal)}
    for name, (logits, correct) in answers.items():
        curves[name] = reliability_curve(logits.double().softmax(dim=1).amax(dim=1), correct, 10)
    text = "Accuracy by confidence, in ten bins of equally many images."
    drawn = line_chart(
        "Reliability", text, _lines(curves), x_label="confidence", y_scale="share", percent=True, marks=True
    )
    return Chart(title="accuracy by confidence", text=text, svg=drawn)


def _lines(curves: Mapping[str, tuple[Tensor, Tensor]]) -> list[Line]:
    return [Line(name=name, x=x.tolist(), y=y.tolist()) for name, (x, y) in curves.items()]
