"""Calibrate a model on labelled images (`prolip calibrate`)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from prolip.decisions.calibration import Calibration, Evidence, Subject, fit_calibration, save_calibration
from prolip.decisions.reliability import Reliability, item_losses, measure_pairs, measure_reliability
from prolip.errors import UserError, check_at_least
from prolip.evaluation.classification import embed_prompts
from prolip.evaluation.config import CalibrateOptions
from prolip.evaluation.folders import TaskFolder
from prolip.evaluation.zero_shot import embed_labelled, open_classes
from prolip.files import check_writable
from prolip.metrics.statistics import Interval, bootstrap, mean
from prolip.pretrained.classify import weigh
from prolip.pretrained.model import Model
from prolip.pretrained.open import load

LEVELS = (0.8, 0.9, 0.95)
ERRORS = (0.02, 0.05, 0.1)


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


def calibrate(model: Model, data: TaskFolder, options: CalibrateOptions) -> Calibrated:
    """Embed the labelled images and calibrate the model on them; errors as for `run_calibrate`."""
    twice = [name for name, count in Counter(data.classnames).items() if count > 1]
    if twice:
        raise UserError(
            f"{data.source} has the class name {twice[0]!r} more than once: name the classes (--classnames)"
        )
    images, truth = embed_labelled(model, data, options.batch_size)
    prompts = embed_prompts(model, data.classnames, data.templates)
    evidence = weigh(images, prompts, None, model.similarity)
    templates = [template.replace("{c}", "{}") for template in data.templates]
    subject = Subject(model.name, model.fingerprint(), data.source, data.classnames, templates)
    calibration, held = fit_calibration(
        evidence,
        truth,
        subject,
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
    before = measure_reliability(evidence.logits, truth, **draws)
    after = measure_reliability(known.logits / calibration.temperature, truth, **draws)
    fitted = "the temperature" if calibration.prior is None else "the labels' shares and the temperature"
    right = [float((some.logits.argmax(dim=1) == truth).double().mean()) for some in (evidence, known)]
    lines = [
        f"{len(found.truth)} labelled images, {len(calibration.labels)} labels. {len(found.truth) - len(held)} images "
        f"were used to fit {fitted} ({calibration.temperature:.3g}). The other {len(held)} were measured:",
        _row("", "before", "after"),
        _row("right answers", *(f"{share:.1%}" for share in right)),
        *_reliability_rows(before, after),
        "(in brackets: 95 % of bootstrap resamples)",
        *_warning(fitted, evidence.logits, known.logits / calibration.temperature, truth, draws),
        "",
        *_pair_lines(calibration, evidence.pair_logits, truth, draws),
    ]
    for level in LEVELS:
        basis = Counter(calibration.class_thresholds(level).basis)
        size = float(calibration.label_sets(known, level).sum(dim=1).double().mean())
        lines.append(
            f"label sets at {level:.0%}: {size:.2f} labels on average; per label, {basis['class']} labels have a "
            f"threshold of their own, {basis['cluster']} share one, {basis['all']} use that of all images"
        )
    for error in ERRORS:
        answered = calibration.abstention(error).answered
        lines.append(
            f"at most {error:.0%} wrong answers (in 19 of 20 calibrations): {answered:.1%} of the images are answered"
        )
    return [*lines, f"This holds for images like those of {calibration.subject.data}, and for no others."]


def _pair_lines(calibration: Calibration, logits: Tensor | None, truth: Tensor, draws: dict[str, int]) -> list[str]:
    """Lines about the probability that one image and one label match; none for a model without a bias."""
    if logits is None or calibration.pairs is None:
        return []
    factor, bias = calibration.pairs
    match = F.one_hot(truth, logits.shape[1]).bool()
    before = measure_pairs(logits, match, **draws)
    after = measure_pairs(factor * logits.double() + bias, match, **draws)
    return [
        f"Does one image match one label, whatever the other labels are? The same images fit a factor, {factor:.3g}, "
        f"and a bias, {bias:.3g}. Measured on the {match.numel():,} pairs of the other images; {len(truth)} match:",
        _row("", "before", "after"),
        *_reliability_rows(before, after),
        "",
    ]


def _warning(fitted: str, before: Tensor, after: Tensor, truth: Tensor, draws: dict[str, int]) -> list[str]:
    """A line if what was fitted makes the labels of the other images less probable, also by the interval's low end.

    The logits, [N, C], are the model's own and the fitted ones.
    """
    losses = [item_losses(logits, truth)[0] for logits in (before, after)]
    more = bootstrap(mean, losses[1] - losses[0], **draws)
    if not more.low > 0:
        return []
    return [
        f"warning: with {fitted} these labels are less probable (negative log-likelihood {more.value:+#.3g}, "
        f"{more.low:+#.3g} to {more.high:+#.3g}): the images used to fit are too few, or too easy: give more, or a "
        "larger --fit_share"
    ]


def _reliability_rows(before: Reliability, after: Reliability) -> list[str]:
    return [
        _row("calibration error", *(_written(side.calibration_error) for side in (before, after))),
        _row("Brier score", *(_written(side.brier) for side in (before, after))),
        _row("negative log-likelihood", *(_written(side.nll) for side in (before, after))),
    ]


def _row(name: str, before: str, after: str) -> str:
    return f"{name:24}{before:>28}{after:>28}"


def _written(value: Interval) -> str:
    shown = [f"{number:#.3g}" for number in value]
    return f"{shown[0]} ({shown[1]} to {shown[2]})"
