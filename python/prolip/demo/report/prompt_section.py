"""The report's section on prompts: the gain of each method, and the weight of each prompt."""

from markupsafe import Markup

from prolip.demo.report import words
from prolip.demo.suite.results import PromptSetFigures
from prolip.report import charts


def gain_chart(trained: PromptSetFigures, random: PromptSetFigures) -> Markup:
    """Draw the gain of each method over even weights, in percentage points, with its interval."""
    rows = [
        words.percent_row(ours.name, ours.gain, ours.gain_low, ours.gain_high, theirs.gain)
        for ours, theirs in zip(trained.methods[1:], random.methods[1:], strict=True)
    ]
    description = "; ".join(
        f"{row.label}: {words.signed(row.mean, 1)} ({words.signed(row.low, 1)} to {words.signed(row.high, 1)}), "
        f"untrained {words.signed(row.untrained, 1)}"
        for row in rows
    )
    return charts.interval_chart(f"Gain over even weights, {trained.level}", description, rows, "points of top-1")


def weight_chart(trained: PromptSetFigures, random: PromptSetFigures) -> Markup:
    """Draw the weight of each template: mean and middle 80 % over classes."""
    rows = [
        words.percent_row(f"“{ours.example}”", ours.mean, ours.low, ours.high, theirs.mean)
        for ours, theirs in zip(trained.weights, random.weights, strict=True)
    ]
    description = "; ".join(f"{row.label} {row.mean:.1f} %, untrained {row.untrained:.1f} %" for row in rows)
    return charts.interval_chart(f"Weights of prompts, {trained.level}", description, rows, "weight, %")


def prompting_sentence(trained: PromptSetFigures, random: PromptSetFigures) -> str | None:
    """Say that re-weighting did not help; None if its gain is clearly above zero."""
    ours, theirs = trained.methods[1], random.methods[1]
    if ours.gain_low > 0:
        return None
    verb = "lowers" if ours.gain_high < 0 else "does not clearly change"
    return (
        f"Re-weighting the {trained.num_prompts} prompts of a class {verb} how often the {trained.level} of a held-out "
        f"emoji is right: {words.signed(100 * ours.gain, 1)} points, 95{words.THIN}% of resamples "
        f"{words.signed(100 * ours.gain_low, 1)} to {words.signed(100 * ours.gain_high, 1)} "
        f"(untrained {words.signed(100 * theirs.gain, 1)})."
    )
