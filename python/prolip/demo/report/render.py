"""Write report.html from a run's files."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from markupsafe import Markup, escape

from prolip.demo.report import words
from prolip.demo.report.decision_section import reliability_chart, risk_chart, risk_sentence
from prolip.demo.report.prompt_section import gain_chart, prompting_sentence, weight_chart
from prolip.demo.report.run_files import ReportInputs, column, read_inputs
from prolip.demo.suite.results import EmojiResults, Headline, LevelFigures, SetFigures
from prolip.files import write_atomic
from prolip.metrics.hierarchy import Inclusion
from prolip.report import charts
from prolip.report.templating import open_templates

LevelGroup = tuple[str, LevelFigures, LevelFigures]
"""What a group of captions is called, and its figures of the trained and of the untrained model."""
SETTINGS = (
    ("samples_seen", "Images seen in training"),
    ("batch_size", "Batch size"),
    ("optim.lr", "Peak learning rate"),
    ("model.embed_dim", "Embedding dimensions"),
    ("model.vision.layers", "Image layers"),
    ("model.vision.width", "Image width"),
    ("model.vision.patch_size", "Patch, pixels"),
    ("model.text.layers", "Text layers"),
    ("model.text.width", "Text width"),
    ("model.text.context_length", "Context, tokens"),
    ("loss.inclusion_weight", "Weight of image ⊂ text"),
    ("loss.masked_inclusion_weight", "Weight of whole ⊂ masked"),
    ("loss.vib_weight", "Weight of VIB"),
    ("data.mask.masked_fraction", "Share of the batch that is masked"),
    ("data.mask.general_prob", "Hierarchical masking, probability"),
    ("seed", "Seed"),
)
"""Settings that the report lists, by key of config.toml. The whole file is in a collapsed section."""


def render_report(run_dir: Path, data_dir: Path) -> Path:
    """Write `run_dir/report.html`, one file that loads nothing from elsewhere, and return its path.

    Args:
        run_dir: folder with eval.json and, if they exist, metrics.jsonl and config.toml.
        data_dir: the emoji shards that were evaluated, for images and credits.

    Raises:
        UserError: the run has no eval.json, or it is damaged or from another version.
    """
    path = run_dir / "report.html"
    write_atomic(path, build_page(read_inputs(run_dir, data_dir)))
    return path


def build_page(inputs: ReportInputs) -> str:
    """Render the report as HTML."""
    environment = open_templates("prolip.demo.report")
    environment.filters["sentence_case"] = words.sentence_case
    environment.globals.update(
        percent=words.percent,
        signed=words.signed,
        relative=words.relative,
        span=words.span,
        percent_range=words.percent_range,
        number_range=words.number_range,
        set_label=words.set_label,
        bullet=charts.bullet,
        linked=linked,
        levels_named=words.LEVEL_NAMES,
        gain_chart=gain_chart,
        weight_chart=weight_chart,
        risk_chart=risk_chart,
        risk_sentence=risk_sentence,
        reliability_chart=reliability_chart,
    )
    results, pictures = inputs.results, inputs.results.gallery.pictures
    trained, random = results.trained, results.random
    level_groups: list[LevelGroup] = [
        ("unseen names", trained.unseen_names, random.unseen_names),
        ("trained names", trained.seen_names, random.seen_names),
    ]
    context: dict[str, Any] = {
        "inputs": inputs,
        "results": results,
        "gallery": results.gallery,
        "images": inputs.images,
        "examples": [
            (name, [image for image in pictures if image.set_name == name])
            for name in dict.fromkeys(image.set_name for image in pictures)
        ],
        "level_chart": level_chart(level_groups),
        "level_groups": level_groups,
        "prompt_levels": list(zip(trained.prompting, random.prompting, strict=True)),
        "inclusion_charts": inclusion_charts(trained.sets, random.sets),
        "cards": cards(results),
        "bin_charts": bin_charts(trained.sets, random.sets),
        "decisions": results.decisions,
        "curves": training_curves(inputs),
        "findings": [
            *words.findings(results),
            *filter(None, map(prompting_sentence, trained.prompting, random.prompting)),
        ],
        "settings": [(label, inputs.config[key]) for key, label in SETTINGS if key in inputs.config],
        "attribution_text": None if inputs.attribution_text is None else linked(inputs.attribution_text),
    }
    return environment.get_template("report.html.j2").render(context)


def cards(results: EmojiResults) -> list[tuple[Headline, tuple[str, float, float] | None]]:
    """The headlines, each with a second figure of the same thing: its name, trained and untrained."""
    by_name = {headline.name: headline for headline in results.headlines}
    trained, random = results.trained, results.random
    second: dict[str, tuple[str, float, float]] = {}
    for name, ours, theirs in (
        ("order_unseen", trained.unseen_names, random.unseen_names),
        ("order_seen", trained.seen_names, random.seen_names),
    ):
        shares = ours.group_over_name.share_not_longer, theirs.group_over_name.share_not_longer
        second[name] = ("name not longer", *shares)
    for name in ("group", "subgroup"):
        known = by_name.pop(f"{name}_with_prior")
        second[name] = ("frequencies known", known.trained, known.random)
    return [(headline, second.get(name)) for name, headline in by_name.items()]


def level_chart(level_groups: Sequence[LevelGroup]) -> Markup:
    """Draw uncertainty by level for each group of names, relative to its own "a picture"."""
    groups = []
    for name, figures, other in level_groups:
        labels = [words.LEVEL_NAMES[level] for level in figures.levels]
        ours = figures.uncertainty
        columns = (ours.relative, ours.low, ours.high, other.uncertainty.relative)
        groups.append((name, list(map(words.percent_row, labels, *columns))))
    description = "; ".join(
        f"{name}: " + ", ".join(f"{row.label} {row.mean:.1f} % (untrained {row.untrained:.1f} %)" for row in rows)
        for name, rows in groups
    )
    return charts.spread_chart("Uncertainty of captions by level", description, groups, "Σσ², % of “a picture”")


def inclusion_chart(
    title: str, name: str, steps: Sequence[Inclusion], untrained: Sequence[Inclusion]
) -> tuple[str, str, Markup]:
    """Draw inclusions of the set `name`, beside those of the untrained model; returns (title, set label, chart)."""
    bars = [
        charts.Bar(
            label=f"{words.LEVEL_NAMES[step.specific]} ⊂ {words.LEVEL_NAMES[step.general]}",
            value=1000 * step.mean_score,
            note=f"positive for {words.percent(step.share_positive, 0)} (○ {words.percent(before.share_positive, 0)})",
            untrained=1000 * before.mean_score,
        )
        for step, before in zip(steps, untrained, strict=True)
    ]
    description = "; ".join(
        f"{bar.label}: {bar.value:.2f}, untrained {bar.untrained:.2f}, {bar.note.replace('○', 'untrained')}"
        for bar in bars
    )
    label = words.set_label(name)
    return title, label, charts.diverging_bars(f"{title}, {label}", description, bars, "mean H per dimension, × 1000")


def inclusion_charts(trained: Sequence[SetFigures], random: Sequence[SetFigures]) -> list[tuple[str, str, Markup]]:
    """Draw inclusions for the first and the last set: image in captions, then captions in each other."""
    shown = ((trained[0], random[0]), (trained[-1], random[-1]))
    return [
        *(
            inclusion_chart("The image in each caption", ours.name, ours.picture_inclusion, theirs.picture_inclusion)
            for ours, theirs in shown
        ),
        # Leave out the first step of the chain, image in name: it is shown above, and its scale would hide the others.
        *(
            inclusion_chart("Each caption in the next", ours.name, ours.inclusion_chain[1:], theirs.inclusion_chain[1:])
            for ours, theirs in shown
        ),
    ]


def bin_charts(trained: Sequence[SetFigures], random: Sequence[SetFigures]) -> list[tuple[str, Markup, str]]:
    """Draw accuracy by uncertainty for each set with enough images; returns (set label, chart, verdict)."""
    shown: list[tuple[str, Markup, str]] = []
    for figures, other in zip(trained, random, strict=True):
        pairs = (
            ("group", figures.group_bins, other.group_bins),
            ("caption in the first 10", figures.retrieval_bins, other.retrieval_bins),
        )
        bins = [(name, ours, theirs) for name, ours, theirs in pairs if ours and theirs]
        lines = [
            charts.Line(name=name, x=range(1, len(ours.accuracy) + 1), y=ours.accuracy, untrained=theirs.accuracy)
            for name, ours, theirs in bins
        ]
        if not lines:
            continue
        label = words.set_label(figures.name)
        description = "; ".join(
            f"{name}: " + ", ".join(words.percent(y, 0) for y in ys)
            for line in lines
            for name, ys in ((line.name, line.y), (f"{line.name}, untrained", line.untrained))
        )
        chart = charts.line_chart(
            f"Accuracy by uncertainty, {label}",
            description,
            lines,
            x_label="bin of images, most certain first",
            y_scale="from zero",
            percent=True,
            marks=True,
        )
        verdict = "; ".join(f"{name}: {words.pearson_sentence(ours, theirs)}" for name, ours, theirs in bins)
        shown.append((label, chart, verdict))
    return shown


Scale = Literal["linear", "from zero", "log"]
CURVES: tuple[tuple[str, str, Scale, tuple[tuple[str, str], ...]], ...] = (
    (
        "Loss",
        "The total loss and its largest term, on a logarithmic scale. Lower is better.",
        "log",
        (("loss", "total"), ("ppcl", "PPCL")),
    ),
    (
        "Inclusion terms",
        "With their weights, on a logarithmic scale. They fall as specific Gaussians come to lie in general ones.",
        "log",
        (
            ("inclusion", "image ⊂ text"),
            ("masked_image_inclusion", "image ⊂ masked image"),
            ("masked_text_inclusion", "text ⊂ masked text"),
        ),
    ),
    ("VIB", "With its weight. It keeps variances from vanishing.", "linear", (("vib", "VIB"),)),
    (
        "Uncertainty",
        "Mean Σσ² of the images and captions of a batch.",
        "linear",
        (("image_uncertainty", "images"), ("text_uncertainty", "captions")),
    ),
    ("Logit scale", "How sharply similarities become probabilities.", "linear", (("logit_scale", "scale"),)),
    ("Learning rate", "Warm-up, then cosine.", "from zero", (("lr", "learning rate"),)),
    ("Gradient norm", "Before clipping, on a logarithmic scale.", "log", (("grad_norm", "norm"),)),
    ("Speed", "Images per second over all processes.", "from zero", (("samples_per_s", "images/s"),)),
)


def training_curves(inputs: ReportInputs) -> list[tuple[str, str, Markup]]:
    """Draw the run's metrics by group; returns (title, how to read it, chart)."""
    steps = column(inputs.metrics, "step")
    shown: list[tuple[str, str, Markup]] = []
    for title, reading, scale, names in CURVES:
        lines = [
            charts.Line(name=label, x=steps, y=column(inputs.metrics, key))
            for key, label in names
            if any(key in row for row in inputs.metrics)
        ]
        if lines:
            description = "; ".join(f"{line.name} ends at {line.y[-1]:.4g}" for line in lines)
            chart = charts.line_chart(title, description, lines, x_label="step", y_scale=scale, height=190.0)
            if chart:
                shown.append((title, reading, chart))
    return shown


def linked(text: str) -> Markup:
    """Escape a text and turn its URLs into links."""
    parts = re.split(r"(https?://[^\s<>()\"']*[^\s<>()\"'.,;:])", text)
    return Markup("").join(
        Markup('<a href="{0}" rel="noopener noreferrer">{0}</a>').format(part) if place % 2 else escape(part)
        for place, part in enumerate(parts)
    )
