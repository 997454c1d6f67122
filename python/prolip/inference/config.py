"""Settings of `prolip classify` and `prolip compare`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from prolip.models.config import Device, Precision


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """One image and the model that looks at it."""

    image: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE")]
    """The image's file."""
    checkpoint: str
    """A released model, a run, a checkpoint, a folder, hf-hub:OWNER/NAME or open_clip:NAME/TAG."""
    tokenizer: str | None = None
    """`clip`, or a tokenizer.json; by default the model's own."""
    precision: Precision = "fp32"
    """Precision of the towers; bf16 and fp16 use autocast."""
    device: Device = "auto"
    """Where the model runs."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True, kw_only=True)
class ClassifyOptions(ImageOptions):
    """Classify images zero-shot: how probable each label is, and how unsure the model is.

    `prolip classify IMAGE LABEL ... --checkpoint MODEL` prints a table of the labels. `prolip classify FOLDER|SHARD ...
    --labels LABEL ... --checkpoint MODEL --out answers.csv` writes a table of the images, of any number.
    """

    image: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE|FOLDER|SHARD")]
    """The image's file; with `out` a folder of images, or shards (a path, an address or a pattern)."""
    words: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="LABEL|FOLDER|SHARD ...")] = ()
    """The labels; with `out` more folders and shards."""
    labels: tuple[str, ...] = ()
    """The labels to choose from; with `guarantee` or `max_error` those of the calibration, where spaces, _ and - are
    the same."""
    templates: tuple[str, ...] = ()
    """Prompts with {} for the label, written after the labels; they are averaged. By default "{}" and "a photo of a
    {}."; with `guarantee` or `max_error` those of the calibration."""
    out: Path | None = None
    """The table of the images to write, .csv or .parquet."""
    batch_size: int = 128
    """With `out`: images per forward pass."""
    prior: tuple[float, ...] = ()
    """Share or count of each label among your images, in their order; by default equal. Not with `guarantee` or
    `max_error`, which use the calibration's."""
    guarantee: float | None = None
    """Also give a set of labels that contains the right one with this probability, such as 0.95. Needs a calibrated
    model (prolip calibrate), and holds for images like those of the calibration."""
    per_label: bool = False
    """Keep the guarantee among the images of each label. Labels with too few calibration images share a threshold."""
    max_error: float | None = None
    """Also give an answer, or "don't know", so that at most this share of the answers is wrong, such as 0.05."""
    calibration: Path | None = None
    """The calibration; by default calibration.safetensors in the model's folder."""


@dataclass(frozen=True, kw_only=True)
class CompareOptions(ImageOptions):
    """Compare an image with texts: distance, uncertainty, and which of the two contains the other."""

    texts: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="TEXT ...", help_behavior_hint="(required)")
    ]
    """The texts."""
