"""Rows and charts of the suite `decisions`. N images, M images from elsewhere, C labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from prolip.decisions.reliability import item_losses, reliability_curve
from prolip.decisions.selective import risk_curve
from prolip.evaluation.decision_scores import BASELINE, FREQUENCIES, Answered, Decided, Folded
from prolip.evaluation.results import Chart, Row, Unit, row_of_items
from prolip.report.charts import Line, line_chart

_MEASURES: dict[str, str] = {
    "AUROC of errors": "auroc",
    "area under risk and coverage": "risk_coverage",
    "excess area under risk and coverage": "excess_risk_coverage",
}
_DRAWN = (BASELINE, "image's variance", "probability and variance", "distance to neighbours")
"""Scores whose curves are drawn."""
_OURS = ("image's variance", "probability over samples", "probability and variance", "distance to neighbours")
"""Scores whose differences are main figures."""
_FAR = ("image's variance", "Mahalanobis distance", "distance to neighbours")
"""The same for images from elsewhere."""


def difference_row(first: Row, other: Row, metric: str, *, main: bool = False) -> Row:
    """Return the row of `other` minus `first`, two figures of the same items."""
    return Row(
        task=other.task,
        metric=metric,
        value=other.value - first.value,
        num_items=other.num_items,
        main=main,
        unit=other.unit,
        difference_of=[first.key, other.key],
    )


def _from_baseline(measure: str, rows: Mapping[str, Row], main: Sequence[str]) -> list[Row]:
    """Return the difference of each score's row from that of the largest probability; main figures for some scores.

    A score's name may also name a model: "image's variance of heads".
    """
    return [
        difference_row(rows[BASELINE], row, f"{measure}, {name} − {BASELINE}", main=name.partition(" of ")[0] in main)
        for name, row in rows.items()
        if name != BASELINE
    ]


def _set_pair(task: str, title: str, within: Tensor, truth: Tensor, *, main: bool = False) -> list[Row]:
    """Return coverage and size of label sets, bool [N, C]."""
    covered = within.gather(1, truth[:, None])[:, 0].double()
    return [
        row_of_items(task, f"{title}: contain the label", covered, main=main),
        row_of_items(task, f"{title}: size", within.sum(dim=1).double(), unit="number", main=main),
    ]


def doubt_rows(task: str, doubts: Mapping[str, Tensor], correct: Tensor) -> list[Row]:
    """How well each score tells wrong answers from right ones, and its difference from the largest probability.

    `doubts` are f64 [N] by name, larger is more doubtful; `correct` is bool [N].
    """
    rows: list[Row] = []
    for measure, statistic in _MEASURES.items():
        groups = (~correct if statistic == "auroc" else correct).long()
        unit: Unit = "share" if statistic == "auroc" else "number"
        own = {
            name: row_of_items(
                task,
                f"{measure} by {name}",
                doubt,
                groups,
                statistic=statistic,
                unit=unit,
                main=statistic == "auroc" and name == BASELINE,
            )
            for name, doubt in doubts.items()
        }
        rows += own.values()
        if statistic != "risk_coverage":  # on the same images, its differences equal those of the excess
            main = _OURS if statistic == "auroc" else ()
            rows += _from_baseline(measure, own, main)
    return rows


def probability_rows(task: str, own: Tensor, others: Mapping[str, Tensor], truth: Tensor) -> list[Row]:
    """How well probabilities agree with the labels, and how that changes with other logits of the same images.

    `own` are the model's logits, [N, C]; `others`, by name, are divided by the temperature of the other folds, or those
    of other models. `truth` is i64 [N].
    """
    rows: list[Row] = []
    found: dict[str, dict[str, Row]] = {}
    for name, logits in {"own scale": own, **others}.items():
        confidence, answer = logits.double().softmax(dim=1).max(dim=1)
        nll, brier = item_losses(logits, truth)
        right = (answer == truth).long()
        found[name] = {
            "calibration error": row_of_items(
                task, f"calibration error, {name}", confidence, right, statistic="equal_mass_error", main=True
            ),
            "Brier score": row_of_items(task, f"Brier score, {name}", brier, unit="number"),
            "negative log-likelihood": row_of_items(task, f"negative log-likelihood, {name}", nll, unit="number"),
        }
        rows += found[name].values()
    first = found.pop("own scale")
    return rows + [
        difference_row(first[measure], row, f"{measure}, {name} − own scale")
        for name, measures in found.items()
        for measure, row in measures.items()
    ]


def beside_rows(task: str, model: str, accuracy: Row, answered: Answered, decided: Decided) -> list[Row]:
    """Accuracy of another model compared with the model's own, and the other model's 90 % label sets.

    `accuracy` is the model's own. `answered` and `decided` are the other model's, on the same images.
    """
    own = row_of_items(task, f"accuracy, by {model}", answered.correct.double())
    title = f"label sets of {model} at 90% by lac"
    return [
        own,
        difference_row(accuracy, own, f"accuracy, by {model} − own"),
        *_set_pair(task, title, decided.sets["lac", 0.9], answered.truth),
    ]


def set_rows(task: str, decided: Decided, truth: Tensor, correct: Tensor, suffix: str = "") -> list[Row]:
    """Coverage and size of label sets; how many images are answered within a limit of errors, and how many wrongly.

    `truth` is i64 [N], `correct` is bool [N]; `suffix` ends what the rows' names say about the calibrations.
    """
    rows: list[Row] = []
    for (score, guarantee), within in decided.sets.items():
        title = f"label sets at {guarantee:.0%} by {score}{suffix}"
        rows += _set_pair(task, title, within, truth, main=score == "lac" and guarantee == 0.9 and not suffix)
    for limit, given in decided.answered.items():
        title = f"at most {limit:.0%} wrong{suffix}"
        rows.append(row_of_items(task, f"{title}: answered", given.double()))
        if bool(given.any()):
            wrong, metric = (~correct).double(), f"{title}: wrong among the answered"
            rows.append(row_of_items(task, metric, wrong, given.long(), statistic="mean_of_chosen"))
    return rows


def frequency_rows(task: str, accuracy: Row, found: Decided, truth: Tensor) -> list[Row]:
    """The effect of calibrations that use label frequencies: on accuracy, 90 % label sets, answers.

    `accuracy` is the model's own, `truth` is i64 [N].
    """
    right = found.logits.argmax(dim=1) == truth
    own = row_of_items(task, f"accuracy, {FREQUENCIES}", right.double())
    return [
        own,
        difference_row(accuracy, own, f"accuracy, {FREQUENCIES} − own", main=True),
        *set_rows(task, found, truth, right, f", {FREQUENCIES}"),
    ]


def elsewhere_rows(task: str, other: str, doubts: Mapping[str, Tensor], there: Mapping[str, Tensor]) -> list[Row]:
    """How well each score detects images from elsewhere, and its difference from the largest probability.

    `doubts` are f64 [N] by name, of the data set's images; `there` are f64 [M], of the images from elsewhere, which are
    called `other`. A score that is missing there is left out.
    """
    measure = "AUROC of images from elsewhere"
    own: dict[str, Row] = {}
    for name, elsewhere in there.items():
        items = torch.cat([doubts[name], elsewhere])
        groups = torch.cat([torch.zeros(len(doubts[name])), torch.ones(len(elsewhere))]).long()
        metric, main = f"{measure} by {name}", name == BASELINE
        own[name] = row_of_items(f"{task}, {other}", metric, items, groups, statistic="auroc", main=main)
    return [*own.values(), *_from_baseline(measure, own, _FAR)]


def fitting_note(task: str, answered: Answered, folded: Folded, doubts: Mapping[str, Tensor], num_known: int) -> str:
    """Which images fitted what, in words.

    `num_known` images of `--known` are those from which the distance to neighbours is measured; 0 for the other folds.
    """
    counts = torch.bincount(answered.truth, minlength=answered.evidence.logits.shape[1]).tolist()
    outside = [len(answered.truth) - size for size in torch.bincount(answered.folds).tolist()]
    fitted = [len(calibration.fitted.correct) for calibration in folded.calibrations]
    held = [len(calibration.held.correct) for calibration in folded.calibrations]
    combined = 'All of them fit "probability and variance". ' if "probability and variance" in doubts else ""
    near = f"the {num_known:,} images of --known" if num_known else "all images of the other folds"
    return (
        f"{task}: {len(answered.truth):,} images of {len(counts):,} labels, {_span(counts)} each, in {len(outside)} "
        f"folds. What is fitted for a fold comes from the {_span(outside)} images of the other folds: {_span(fitted)} "
        f"fit the temperature, the label frequencies and the Mahalanobis distance, and {_span(held)} give the "
        f"thresholds of label sets and of limits of errors. {combined}The distance to neighbours is measured from "
        f"{near}. Images from elsewhere are measured by what was fitted for the first fold."
    )


def _span(numbers: Sequence[int]) -> str:
    """The smallest and the largest number, or the only one."""
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def risk_chart(task: str, doubts: Mapping[str, Tensor], correct: Tensor) -> Chart:
    """Share of wrong answers among the least doubtful images, by how many of them are answered.

    `doubts` are f64 [N] by name, `correct` is bool [N].
    """
    lines = []
    for name in _DRAWN:
        if name in doubts:
            answered, wrong = risk_curve(doubts[name], correct)
            lines.append(Line(name=name, x=answered.tolist(), y=wrong.tolist()))
    text = f"Wrong answers among those given, for {task}, if only the least doubtful images are answered."
    drawn = line_chart("Risk and coverage", text, lines, x_label="share answered", y_scale="from zero", percent=True)
    return Chart(title=f"{task}: wrong answers by share answered", text=text, svg=drawn)


def reliability_chart(task: str, before: Tensor, after: Tensor, correct: Tensor) -> Chart:
    """Accuracy by confidence, for logits [N, C] without and with temperature; on the diagonal they agree."""
    lines = []
    for name, logits in (("own scale", before), ("temperature", after)):
        confidence, accuracy = reliability_curve(logits.double().softmax(dim=1).amax(dim=1), correct, 10)
        lines.append(Line(name=name, x=confidence.tolist(), y=accuracy.tolist()))
    lines.append(Line(name="agreement", x=[0.0, 1.0], y=[0.0, 1.0]))
    text = f"Accuracy by confidence, for {task}, in ten bins of equally many images."
    drawn = line_chart("Reliability", text, lines, x_label="confidence", y_scale="share", percent=True, marks=True)
    return Chart(title=f"{task}: accuracy by confidence", text=text, svg=drawn)
