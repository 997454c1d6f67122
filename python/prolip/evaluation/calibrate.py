"""Calibrate a model on labelled images (`prolip calibrate`)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from prolip.decisions.calibration import Calibration, Evidence, Subject, fit_calibration, save_calibration
from prolip.decisions.fitting import BOUND
from prolip.errors import check_at_least
from prolip.evaluation.classification import embed_labelled, embed_prompts
from prolip.evaluation.config import CalibrateOptions
from prolip.evaluation.datasets import DataSet, open_classes
from prolip.files import check_writable
from prolip.metrics.reliability import Reliability, measure_pairs, measure_reliability
from prolip.pretrained.classify import check_labels, weigh
from prolip.pretrained.model import Model
from prolip.pretrained.open import load

_GUARANTEES = (0.8, 0.9, 0.95)
_ERROR_LIMITS = (0.02, 0.05, 0.1)


class Calibrated(NamedTuple):
    """A calibration, and the data that it was made from."""

    calibration: Calibration
    evidence: Evidence
    """Without the calibration's prior."""
    truth: Tensor
    """i64 [N]"""
    held: Tensor
    """i64 [n], indices of the images that were not used to fit."""


def run_calibrate(options: CalibrateOptions) -> list[str]:
    """Calibrate the model, write the file, and return the lines to print.

    Raises:
        UserError: the model or the data cannot be used.
        DataError: an image has no label, or too many cannot be read.
    """
    check_writable(options.path)
    check_at_least(1, batch_size=options.batch_size)
    with TemporaryDirectory() as made:
        data = open_classes(options.data, Path(made), options.store, options.templates, options.classnames)
        model = load(
            options.checkpoint, tokenizer=options.tokenizer, device=options.device, precision=options.precision
        )
        found = calibrate(model, data, options)
    save_calibration(found.calibration, options.path)
    return report_lines(found, options)


def calibrate(model: Model, data: DataSet, options: CalibrateOptions) -> Calibrated:
    """Embed the labelled images and calibrate the model on them."""
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
    """Return lines about probabilities before and after, of labels and of single pairs; label sets and "don't know"."""
    calibration, held = found.calibration, found.held
    evidence, truth = found.evidence.rows(held), found.truth[held]
    known = calibration.with_prior(evidence)
    draws = {"num_resamples": options.num_resamples, "seed": options.seed}
    fitted = "the temperature" if calibration.prior is None else "the labels' shares and the temperature"
    right = [float((some.logits.argmax(dim=1) == truth).double().mean()) for some in (evidence, known)]
    sides = [
        measure_reliability(logits, truth, **draws)
        for logits in (evidence.logits, known.logits / calibration.temperature)
    ]
    lines = [
        f"{len(found.truth)} labelled images, {len(calibration.labels)} labels. {len(found.truth) - len(held)} images "
        f"were used to fit {fitted} ({calibration.temperature:.3g}). The other {len(held)} were measured:",
        _row("", "before", "after"),
        _row("right answers", *(f"{share:.1%}" for share in right)),
        *_reliability_rows(sides),
        "(in brackets: 95 % intervals)",
        "",
    ]
    unrelated = calibration.temperature >= BOUND
    if evidence.pair_logits is not None and calibration.pairs is not None:
        pairs, (factor, bias) = evidence.pair_logits.double(), calibration.pairs
        unrelated |= factor <= 0
        match = F.one_hot(truth, pairs.shape[1]).bool()
        lines += [
            f"Does one image match one label, whatever the other labels are? The same images fit a factor, "
            f"{factor:.3g}, and a bias, {bias:.3g}. Measured on the {match.numel():,} pairs of the other images; "
            f"{len(truth)} match:",
            _row("", "before", "after"),
            *_reliability_rows([measure_pairs(logits, match, **draws) for logits in (pairs, factor * pairs + bias)]),
            "",
        ]
    if unrelated:
        lines.append(
            "warning: images are no more similar to their own label than to others: is the model trained, and are the "
            "labels in the right order?"
        )
    for guarantee in _GUARANTEES:
        basis = Counter(calibration.class_thresholds(guarantee).basis)
        size = float(calibration.label_sets(known, guarantee).sum(dim=1).double().mean())
        lines.append(
            f"label sets at {guarantee:.0%}: {size:.2f} labels on average; per label, {basis['class']} labels have a "
            f"threshold of their own, {basis['cluster']} share one, {basis['all']} use that of all images"
        )
    for limit in _ERROR_LIMITS:
        answered = calibration.abstention(limit).answered
        lines.append(
            f"at most {limit:.0%} wrong answers (in 19 of 20 calibrations): {answered:.1%} of the images are answered"
        )
    return [*lines, f"This holds for images like those of {calibration.subject.data}, and for no others."]


def _reliability_rows(sides: list[Reliability]) -> list[str]:
    names = ("calibration error", "Brier score", "negative log-likelihood")
    return [
        _row(name, *("{:#.3g} ({:#.3g} to {:#.3g})".format(*interval) for interval in both))
        for name, both in zip(names, zip(*sides, strict=True), strict=True)
    ]


def _row(name: str, before: str, after: str) -> str:
    return f"{name:24}{before:>32}{after:>32}"
