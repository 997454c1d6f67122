"""Compare one image with labels or texts (`prolip classify`, `prolip compare`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prolip.calibration.fitting import log_prior
from prolip.errors import check
from prolip.gaussian import Gaussian, csd, inclusion_score
from prolip.inference.classify import Classification, Decide, check_labels, check_limits, require_calibration
from prolip.inference.config import ClassifyOptions, CompareOptions, ImageOptions
from prolip.inference.encoder import is_many
from prolip.inference.load_model import load
from prolip.inference.model import Model
from prolip.inference.tokenizer import warn_of_unknown_words
from prolip.metrics.config import DEFAULT_TEMPLATES
from prolip.metrics.prompts import fill_templates
from prolip.report.text_table import align

_NO_VARIANCES = "the model has no variances: uncertainty and inclusion are unknown"


def run_classify(options: ClassifyOptions) -> list[str]:
    """Classify an image; returns the lines to print, the most probable label first."""
    check(
        not is_many(options.image), "out", "must be given for folders and shards, as --out answers.csv", options.image
    )
    check(Path(options.image).is_file(), options.image, "no such image file")
    model, labels, classify = open_classifier(options, (*options.words, *options.labels))
    found = classify(model.encode_images(options.image, progress=False))
    rows: list[dict[str, Any]] = [
        {
            "label": label,
            "probability": float(found.probabilities[0, place]),
            "match": None if found.match is None else float(found.match[0, place]),
            "uncertainty": float(found.label_uncertainty[place]) if model.has_variances else None,
        }
        for place, label in enumerate(labels)
    ]
    rows.sort(key=lambda row: -row["probability"])
    decided: dict[str, Any] = {}
    lines = []
    if found.label_sets is not None and options.guarantee is not None:
        decided["label_set"] = found.label_sets[0]
        which = ", whichever label it is" if options.per_label else ""
        sure = f"at least {100 * options.guarantee:g}% of such sets contain the right label{which}, on average"
        lines.append(f"label set: {', '.join(found.label_sets[0])} ({sure})")
    if found.answers is not None and options.max_error is not None:
        decided["answer"] = found.answers[0]
        answer = found.answers[0] or "don't know"
        lines.append(f"answer, if at most {100 * options.max_error:g}% may be wrong: {answer}")
    if found.usual is not None and model.calibration is not None:
        decided["usual"] = float(found.usual[0])
        lines.append(f"{decided['usual']:.0%} of the calibration's images are at least as unusual as this one")
        lines.append(f"This holds for images like those of {model.calibration.subject.data}, and for no others.")
    uncertainty = float(found.uncertainty[0]) if model.has_variances else None
    return _lines(options, "labels", rows, uncertainty, decided, lines)


def open_classifier(
    options: ClassifyOptions, labels: Sequence[str]
) -> tuple[Model, Sequence[str], Callable[[Gaussian], Classification]]:
    """Open the model; returns it, the labels, by default its calibration's, and its classifier of images."""
    decide = Decide(options.guarantee, options.per_label, options.max_error)
    check_limits(decide)  # and the rest, before a model is opened, which takes longer
    check(labels or decide.asked, "labels", "give at least one, or guarantee or max_error for those of the calibration")
    if labels:
        check_labels(labels)
        fill_templates(options.templates or DEFAULT_TEMPLATES, labels)
        if options.prior:
            log_prior(options.prior, len(labels))
    model = _load(options, options.calibration)
    labels = labels or require_calibration(model.calibration).labels
    warn_of_unknown_words(model.encoder.tokenizer, labels)
    classify = model.classifier(labels, decide, options.templates or None, None, options.prior or None, False)
    return model, labels, classify


def run_compare(options: CompareOptions) -> list[str]:
    """Compare an image with texts; returns the lines to print, the nearest text first."""
    check(options.texts, "texts", "give at least one text after the image")
    check(Path(options.image).is_file(), options.image, "no such image file")
    model = _load(options)
    image = model.encode_images(options.image, progress=False)
    texts = model.encode_texts(options.texts, progress=False)
    columns = {
        "text": list(options.texts),
        "csd": csd(image, texts)[0].tolist(),
        "similarity": (image.mean @ texts.mean.T)[0].tolist(),
        "uncertainty": texts.uncertainty.tolist() if model.has_variances else None,
        "image_in_text": inclusion_score(image, texts).sum(-1).tolist() if model.has_variances else None,
        "text_in_image": inclusion_score(texts, image).sum(-1).tolist() if model.has_variances else None,
    }
    rows: list[dict[str, Any]] = [
        {name: None if column is None else column[place] for name, column in columns.items()}
        for place in range(len(options.texts))
    ]
    rows.sort(key=lambda row: row["csd"])
    return _lines(options, "texts", rows, float(image.uncertainty[0]) if model.has_variances else None)


def _load(options: ImageOptions, calibration: Path | None = None) -> Model:
    return load(
        options.checkpoint,
        tokenizer=options.tokenizer,
        device=options.device,
        precision=options.precision,
        calibration=calibration,
    )


def _lines(
    options: ImageOptions,
    name: str,
    rows: Sequence[dict[str, Any]],
    uncertainty: float | None,
    decided: Mapping[str, Any] | None = None,
    further: Sequence[str] = (),
) -> list[str]:
    if options.json:
        found = {"image": options.image, "checkpoint": options.checkpoint, "uncertainty": uncertainty, name: rows}
        return [json.dumps(found | dict(decided or {}), indent=1, ensure_ascii=False)]
    about = _NO_VARIANCES if uncertainty is None else f"uncertainty {uncertainty:.4g}"
    cells = [[column.replace("_", " ") for column in rows[0]]]
    cells += [[_shown(column, value) for column, value in row.items()] for row in rows]
    return [f"{options.image}: {about}", "", *align(cells), *([""] if further else []), *further]


def _shown(column: str, value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or "-"
    return f"{value:.2%}" if column in {"probability", "match"} else f"{value:.4g}"
