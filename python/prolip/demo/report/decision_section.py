"""The report's section on decisions: wrong answers by share answered, and accuracy by probability."""

from markupsafe import Markup

from prolip.demo.report import words
from prolip.demo.suite.results import DecisionFigures
from prolip.report import charts


def risk_chart(decisions: DecisionFigures) -> Markup:
    """Draw the share of wrong answers by how many of the least doubtful images are answered."""
    lines = [charts.Line(name=curve.name, x=curve.answered, y=curve.wrong) for curve in decisions.risk]
    description = "; ".join(
        f"by {line.name}: {words.percent(line.y[0])} wrong of the first {words.percent(line.x[0], 0)}, "
        f"{words.percent(line.y[-1])} of all"
        for line in lines
    )
    return charts.line_chart(
        "Wrong answers by share answered",
        description,
        lines,
        x_label="share answered",
        y_scale="from zero",
        percent=True,
    )


def risk_sentence(decisions: DecisionFigures) -> str:
    """Say which of the two scores detects wrong answers better."""
    probability, variance = decisions.risk
    difference = decisions.auroc_difference
    if difference.high < 0:
        verdict = "The image's uncertainty detects wrong answers less well than the largest probability"
    elif difference.low > 0:
        verdict = "The image's uncertainty detects wrong answers better than the largest probability"
    else:
        verdict = "Neither score is clearly better"
    return (
        f"{verdict}: a wrong answer has more doubt than a right one in {words.percent_range(variance.auroc)} of pairs "
        f"by uncertainty, and in {words.percent_range(probability.auroc)} by probability (AUROC; chance "
        f"is 50{words.THIN}%)."
    )


def reliability_chart(decisions: DecisionFigures) -> Markup:
    """Draw accuracy by probability, with the model's own scale and calibrated."""
    lines = [charts.Line(name=one.name, x=one.confidence, y=one.accuracy) for one in decisions.reliability]
    description = "; ".join(
        f"{one.name}: calibration error {words.percent(one.calibration_error.value)}" for one in decisions.reliability
    )
    agreement = charts.Line(name="agreement", x=[0.0, 1.0], y=[0.0, 1.0])
    return charts.line_chart(
        "Accuracy by probability",
        description,
        [*lines, agreement],
        x_label="probability",
        y_scale="share",
        percent=True,
        marks=True,
    )
