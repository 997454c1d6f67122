"""How far a model's answer on an image can be relied on: label set, "don't know", two kinds of doubt. No HTML here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from prolip.decisions.calibration import Calibration
from prolip.errors import UserError
from prolip.gaussian import Gaussian
from prolip.metrics.prompts import encode_prompts
from prolip.pretrained.classify import NOTHING, PLAIN, Decide, classification
from prolip.pretrained.model import Model


class Doubt(NamedTuple):
    """One kind of doubt about an image."""

    value: float
    share: float | None
    """Share of known images with less doubt; None if there are no images to compare with."""
    of: str
    """The images to compare with, in words."""


@dataclass(frozen=True, kw_only=True)
class Reliance:
    """What a model says about an image, and how far it can be relied on."""

    labels: list[str]
    """The most probable first."""
    probabilities: list[float]
    """Calibrated, if there is a calibration for these labels."""
    guarantee: float
    """Probability that the set contains the right label."""
    max_error: float
    """Largest share of wrong answers among those given."""
    within: list[bool] | None
    """Which labels are in the set; None without a calibration for these labels."""
    answer: str | None
    """None: "don't know"."""
    threshold: float
    """Probability from which answers are given; infinity if none is high enough, or without a calibration."""
    data: str | None
    """Images that the guarantee holds for; None without a calibration for these labels."""
    why_not: str | None
    """Why there is no guarantee, in one sentence."""
    left_open: Doubt
    """How ambiguous the image is: its total variance."""
    not_learned: Doubt | None
    """How little the model knows such images: distance from known images; None without a calibration."""


def rely_on(
    model: Model,
    image: Gaussian,
    labels: Sequence[str],
    embed: Callable[[Sequence[str]], Gaussian],
    decide: Decide,
    left_open: Doubt,
) -> Reliance:
    """Decide about an image, [1, D], with the model's calibration; without one, say what is missing.

    `embed` returns the Gaussians [N, D] of prompts. `left_open` says how ambiguous the image is.
    """
    assert decide.guarantee is not None
    assert decide.max_error is not None
    calibration, why_not = _for_labels(model, labels)
    templates = PLAIN if calibration is None else calibration.subject.templates
    found = classification(
        image,
        encode_prompts(templates, labels, embed),
        labels,
        weights=None,
        similarity=model.similarity,
        decide=NOTHING if calibration is None else decide,
        calibration=calibration,
    )
    ranked = found.probabilities[0].sort(descending=True, stable=True)
    names = [labels[place] for place in ranked.indices.tolist()]
    return Reliance(
        labels=names,
        probabilities=ranked.values.tolist(),
        guarantee=decide.guarantee,
        max_error=decide.max_error,
        within=None if found.label_sets is None else [name in found.label_sets[0] for name in names],
        answer=None if found.answers is None else found.answers[0],
        threshold=float("inf") if calibration is None else calibration.abstention(decide.max_error).threshold,
        data=None if calibration is None else calibration.subject.data,
        why_not=why_not,
        left_open=left_open,
        not_learned=_distance(model.calibration, image),
    )


def _for_labels(model: Model, labels: Sequence[str]) -> tuple[Calibration | None, str | None]:
    """Return the model's calibration if it is for these labels; else None, and a sentence about what is missing."""
    calibration = model.calibration
    if calibration is None:
        out = "" if Path(model.name).is_dir() else " --out calibration.safetensors"
        made = f"prolip calibrate --checkpoint {model.name} --data FOLDER{out}"
        more = " Then start this page with --calibration calibration.safetensors." if out else ""
        return None, f"There is no calibration: {made} makes one from labelled images, a folder per label.{more}"
    try:
        calibration.check_labels(labels, calibration.subject.templates)
    except UserError as error:
        return None, f"There is no guarantee for these labels: {error}."
    return calibration, None


def _distance(calibration: Calibration | None, image: Gaussian) -> Doubt | None:
    """Return an image's distance from known images, compared with the calibration images that were held back."""
    if calibration is None:
        return None
    distance = float(calibration.known.distance(image.mean)[0])
    nearer = float((calibration.held.distance < distance).double().mean())
    return Doubt(distance, nearer, "the calibration's images")
