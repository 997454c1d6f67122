"""Calibrate a model on labelled images (`prolip calibrate`), and measure that on others (suite `calibration`)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from prolip.calibration.calibration import Calibration, Evidence, Subject, fit_calibration, save_calibration
from prolip.data.class_names import class_places
from prolip.datasets.data_set import DataSet, open_classes
from prolip.errors import check_at_least
from prolip.evaluation.classification import class_opener, class_rows, embed_labelled, embed_prompts
from prolip.evaluation.config import CalibrateOptions, CalibrationOptions
from prolip.evaluation.evaluate import evaluate_data
from prolip.evaluation.results import RowId, SuiteResult, TaskCache, TaskResult, judged, row_of_items
from prolip.evaluation.stored import open_data, open_model
from prolip.inference.classify import Decide, check_labels, check_limits, check_subject, require_calibration, weigh
from prolip.inference.model import Model
from prolip.metrics.reliability import Reliability, measure_pairs, measure_reliability
from prolip.report.text_table import align
from prolip.store.atomic_writes import check_writable

_GUARANTEES = (0.8, 0.9, 0.95)
_ERROR_LIMITS = (0.02, 0.05, 0.1)


class Calibrated(NamedTuple):
    """A calibration, and what it was made from."""

    calibration: Calibration
    evidence: Evidence
    """Without the calibration's prior."""
    truth: Tensor
    """i64 [N]"""
    held: Tensor
    """i64 [n], images that were not used to fit."""


def run_calibrate(options: CalibrateOptions) -> list[str]:
    """Calibrate the model, write the file; returns the lines to print."""
    check_writable(options.path)
    check_at_least(1, batch_size=options.batch_size)
    data = open_classes(options.data, options.store, options.templates, options.classnames, opened=open_data)
    model = open_model(
        options.checkpoint, tokenizer=options.tokenizer, device=options.device, precision=options.precision
    )
    found = calibrate(model, data, options)
    save_calibration(found.calibration, options.path)
    return report_lines(found, options)


def calibrate(model: Model, data: DataSet, options: CalibrateOptions) -> Calibrated:
    """On the labelled images."""
    check_labels(data.classnames)
    images, truth = embed_labelled(model, data, options.batch_size)
    evidence = weigh(images, embed_prompts(model, data.classnames, data.templates), None, model.similarity)
    templates = [template.replace("{c}", "{}") for template in data.templates]
    calibration, held = fit_calibration(
        evidence,
        truth,
        Subject(model.name, model.fingerprint(), data.source, data.classnames, templates),
        score=options.score,
        prior=options.prior,
        fit_share=options.fit_share,
        seed=options.seed,
    )
    return Calibrated(calibration, evidence, truth, held)


def report_lines(found: Calibrated, options: CalibrateOptions) -> list[str]:
    """On probabilities before and after, of labels and of single pairs; label sets and "don't know"."""
    calibration, held = found.calibration, found.held
    evidence, truth = found.evidence.rows(held), found.truth[held]
    known = calibration.with_prior(evidence)
    draws = {"num_resamples": options.num_resamples, "seed": options.seed}
    fitted = "the temperature" if calibration.prior is None else "the labels' shares and the temperature"
    right = [(some.logits.argmax(dim=1) == truth).double().mean() for some in (evidence, known)]
    lines = [
        f"{len(found.truth)} labelled images, {len(calibration.labels)} labels. {len(found.truth) - len(held)} images "
        f"were used to fit {fitted} ({calibration.temperature:.3g}). The other {len(held)} were measured:",
        *_table(
            [
                measure_reliability(logits, truth, **draws)
                for logits in (evidence.logits, known.logits / calibration.temperature)
            ]
        ),
        f"(in brackets: 95 % intervals; right answers: {right[0]:.1%} before, {right[1]:.1%} after)",
        "",
    ]
    if evidence.pair_logits is not None and calibration.pairs is not None:
        pairs, (factor, bias) = evidence.pair_logits.double(), calibration.pairs
        match = F.one_hot(truth, pairs.shape[1]).bool()
        lines += [
            f"Does one image match one label, whatever the other labels are? The same images fit a factor, "
            f"{factor:.3g}, and a bias, {bias:.3g}. Measured on the {match.numel():,} pairs of the other images; "
            f"{len(truth)} match:",
            *_table([measure_pairs(logits, match, **draws) for logits in (pairs, factor * pairs + bias)]),
            "",
        ]
        if factor <= 0:
            lines.append(
                "warning: the factor is not positive: images are no more similar to their own label than to others; is "
                "the model trained, and are the labels in the right order?"
            )
    for guarantee in _GUARANTEES:
        basis = Counter(calibration.class_thresholds(guarantee).basis)
        lines.append(
            f"label sets at {guarantee:.0%}: {calibration.label_sets(known, guarantee).sum(dim=1).double().mean():.2f} "
            f"labels on average; per label, {basis['class']} labels have a threshold of their own, {basis['cluster']} "
            f"share one, {basis['all']} use that of all images"
        )
    lines += [
        f"at most {limit:.0%} wrong answers (in 19 of 20 calibrations): {calibration.abstention(limit).answered:.1%} "
        "of the images are answered"
        for limit in _ERROR_LIMITS
    ]
    return [*lines, f"This holds for images like those of {calibration.subject.data}, and for no others."]


def run_calibration(model: Model, options: CalibrationOptions, cache: TaskCache) -> SuiteResult:
    """How often label sets contain the label and answers are right, of all images and by label."""
    check_limits(Decide(options.guarantee, max_error=options.max_error))
    calibration = require_calibration(model.calibration)
    opened = class_opener(options, calibration.subject.templates)
    return evaluate_data("calibration", model, options, options.data, cache, opened, measure_promises, calibration)


def measure_promises(model: Model, data: DataSet, options: CalibrationOptions) -> TaskResult:
    """On one data set."""
    calibration = require_calibration(model.calibration)
    labels, templates, held = calibration.labels, calibration.subject.templates, calibration.held.label
    places = class_places(data.classnames, labels)
    if -1 in places:
        check_subject(calibration, data.classnames, templates)
    images, classes = embed_labelled(model, data, options.batch_size)
    truth = torch.tensor(places)[classes]
    raw = weigh(images, embed_prompts(model, labels, templates), None, model.similarity)
    evidence = calibration.with_prior(raw)
    notes = []
    before, after = (some.bincount(minlength=len(labels)) for some in (held, truth))
    shift = after / len(truth) - before / len(held)
    # Pearson's chi-squared test; a label without images is 0 / 0.
    statistic = len(held) * len(truth) * (shift.square() / (before + after)).nansum()
    if torch.special.gammaincc(((before + after > 0).sum() - 1) / 2, statistic / 2) < 0.01:
        notes.append(
            f"warning: labels are not as frequent as in the calibration; {labels[shift.argmax()]} is more frequent by "
            f"{100 * shift.max():.1f} points. If nothing else has changed, sets per label still hold"
        )
    given = calibration.confidence(evidence) >= calibration.abstention(options.max_error).threshold
    right = (evidence.logits.argmax(dim=1) == truth)[given]
    # The limit of errors is promised for this calibration, with a probability; a guarantee is an average of many.
    parts = [(RowId("right_answers", at=options.max_error), right, truth[given], 1 - options.max_error, math.inf)]
    for by in ("", "per_label"):
        within = calibration.label_sets(evidence, options.guarantee, per_label=by != "")
        id, hits = RowId("set_coverage", by=by, at=options.guarantee), within.gather(1, truth[:, None])[:, 0]
        parts.append((id, hits, truth, options.guarantee, len(held)))
    rows, rest = [], [row_of_items(RowId("dont_know", at=options.max_error), ~given, main=True)]
    for id, hits, of, *promise in parts:
        if len(hits):
            rows.append(judged(row_of_items(id, hits, main=True), *promise))
        by_label = class_rows(id, hits, of, labels)
        rest += [judged(row, *promise) for row in by_label] if id.by == "per_label" else by_label
    rows += sorted(rest, key=lambda row: not row.verdict)
    return TaskResult(rows=rows, notes=notes)


def _table(sides: Sequence[Reliability]) -> Iterator[str]:
    columns = [["{:#.3g} ({:#.3g} to {:#.3g})".format(*interval) for interval in side] for side in sides]
    names = ("calibration error", "Brier score", "negative log-likelihood")
    return align([("", "before", "after"), *zip(names, *columns, strict=True)])
