"""Settings of `prolip export`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from prolip.errors import UserError

OnnxPrecision = Literal["fp32", "fp16", "int8"]


@dataclass(frozen=True, kw_only=True)
class OnnxConfig:
    """Settings of the ONNX files."""

    precision: OnnxPrecision = "fp32"
    """Type of the towers' weights and products. With fp16 the inputs, the last layers and the outputs stay fp32, with
    int8 the inputs and the outputs. int8 is for CPUs."""
    uint8_images: bool = False
    """Take images as uint8 [batch, height, width, 3] and normalise them inside. By default: as normalised float32
    [batch, 3, height, width]."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Write a model to a folder or to the hub, in the layout of the released models or of another library."""

    checkpoint: Annotated[str, tyro.conf.Positional]
    """A run's folder (its newest usable checkpoint), or any source of `prolip.load`: a checkpoint, a folder,
    hf-hub:OWNER/NAME, open_clip:NAME/TAG."""
    out: Path | None = None
    """Folder to write."""
    format: Literal["prolip", "transformers", "sentence-transformers", "onnx"] = "prolip"
    """Layout of the folder. `prolip`: that of the released models, with a tokenizer file and a calibration if any.
    `transformers` and `sentence-transformers`: also with image processor and code, so that these libraries load it
    without prolip. `onnx`: both towers (needs the extra `onnx`) and a complete tokenizer.json."""
    tokenizer: str | None = None
    """`clip`, or a tokenizer.json; by default the model's own. Every format but `prolip` needs one."""
    onnx: OnnxConfig = field(default_factory=OnnxConfig)
    """The ONNX files; only for the format `onnx`."""
    push: str | None = None
    """Hub repository to push to, OWNER/NAME."""
    private: bool = False
    """Make the repository private if it is new."""
    name: str | None = None
    """Title of the model card; by default the run's name."""
    weights: Literal["average", "trained"] = "average"
    """Weights of a run to write: the moving average, if the run keeps one (`ema.decay`), or always the trained ones."""
    licence: Annotated[str | None, tyro.conf.arg(aliases=["--license"])] = None
    """Licence of the weights by its id on the hub, such as mit or cc-by-4.0; by default unknown."""
    trained_on: str | None = None
    """Description of the training data; by default the run's shard patterns."""

    def __post_init__(self) -> None:
        # It stands in the card's header, which is YAML.
        if self.licence is not None and not re.fullmatch(r"[\w.+-]+", self.licence):
            raise UserError("licence", "must be an id of the hub, such as mit or cc-by-4.0", f"{self.licence!r}")
        if self.push is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", self.push):
            raise UserError("push", "must be OWNER/NAME", f"{self.push!r}")
