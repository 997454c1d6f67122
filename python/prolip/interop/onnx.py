"""Write both towers of a model as ONNX files, and check them in onnxruntime.

image.onnx takes `images`: float32 [B, 3, height, width], normalised; or uint8 [B, height, width, 3], the pixels of a
decoded image, which it normalises itself. text.onnx takes `token_ids`: int64 [B, L], padded to the full context. Both
return `mean`, float32 [B, D] of unit length, and `log_var`, float32 [B, D].

B batch, L tokens, D embedding.
"""

from __future__ import annotations

import copy
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prolip.errors import UserError
from prolip.gaussian import Gaussian
from prolip.interop.config import OnnxConfig, OnnxPrecision
from prolip.models import ProLIP
from prolip.normalization import OPENAI_MEAN, OPENAI_STD

IMAGE_FILE = "image.onnx"
TEXT_FILE = "text.onnx"


class Difference(NamedTuple):
    """Differences from the model in torch and single precision."""

    mean: float
    """Largest difference of a mean's component."""
    log_var: float
    """Largest difference of a log variance."""


TOLERANCES: dict[OnnxPrecision, Difference] = {"fp32": Difference(1e-4, 1e-4), "fp16": Difference(2e-3, 2e-2)}
"""Largest differences that an export may have."""
_IN_SINGLE_PRECISION = {
    *("ln_post", "proj", "attn_pool", "uncertainty_proj"),
    *("ln_final", "text_projection", "text_uncertainty_projection"),
}
"""Last layers of the towers, which compute what is compared."""
_LARGEST_FILE = 2_000_000_000
"""A protobuf holds 2 GiB; weights of larger towers go into a file beside it."""


class _Tower(nn.Module):
    """A tower with numbers of one type in its blocks, and unit means in single precision at its end."""

    def __init__(self, encoder: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.encoder = encoder
        if dtype != torch.float32:
            self.encoder = copy.deepcopy(encoder)
            for name, parameter in self.encoder.named_parameters():
                if name.split(".")[0] not in _IN_SINGLE_PRECISION:
                    parameter.data = parameter.data.to(dtype)
        self.eval()

    def forward(self, inputs: Tensor) -> Gaussian:
        mean, log_var = self.encoder(inputs)
        return Gaussian(F.normalize(mean, dim=-1, eps=1e-12), log_var)


class _ImageTower(_Tower):
    def forward(self, inputs: Tensor) -> Gaussian:
        pixels = inputs
        if inputs.dtype == torch.uint8:
            mean, std = (torch.tensor(values, device=inputs.device).view(3, 1, 1) for values in (OPENAI_MEAN, OPENAI_STD))
            pixels = (inputs.permute(0, 3, 1, 2).float() / 255.0 - mean) / std
        return super().forward(pixels.to(self.dtype))


def write_towers(model: ProLIP, folder: Path, config: OnnxConfig) -> list[str]:
    """Write image.onnx and text.onnx, and return a line for each with its differences from torch.

    The number of items in a batch is free. A tower of more than 2 GB has its weights in NAME.onnx.data. The files'
    metadata hold `logit_scale` and, if the model has one, `logit_bias`.

    Raises:
        UserError: the packages of the extra `onnx` are missing; torch cannot export the architecture; or onnxruntime
            gives other numbers than torch.
    """
    model = model.eval().cpu()
    dtype = torch.float16 if config.precision == "fp16" else torch.float32
    vision, text = model.config.vision, model.config.text
    size = vision.image_size
    height, width = (size, size) if isinstance(size, int) else size
    noise = torch.Generator().manual_seed(0)
    if config.uint8_images:
        images = torch.randint(0, 256, (5, height, width, 3), generator=noise, dtype=torch.uint8)
    else:
        images = torch.randn(5, 3, height, width, generator=noise)
    ids = torch.randint(0, text.vocab_size, (5, text.context_length), generator=noise)
    metadata = {"logit_scale": repr(float(model.logit_scale.exp()))}
    if model.logit_bias is not None:
        metadata["logit_bias"] = repr(float(model.logit_bias))
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for path, tower, encoder, name, inputs in (
        (folder / IMAGE_FILE, _ImageTower, model.visual, "images", images),
        (folder / TEXT_FILE, _Tower, model.text, "token_ids", ids),
    ):
        with torch.no_grad():
            expected = tower(encoder, torch.float32)(inputs)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            written = Path(temporary) / path.name
            _export(tower(encoder, dtype), inputs[:2], name, metadata, written)
            found = _difference(written, {name: inputs.numpy()}, expected)
            allowed = TOLERANCES[config.precision]
            # Written so that NaN fails.
            if not (found.mean <= allowed.mean and found.log_var <= allowed.log_var):
                raise UserError(
                    f"{path.name} in {config.precision} differs from torch by {found.mean:.1e} (mean) and "
                    f"{found.log_var:.1e} (log variance): at most {allowed.mean:.0e} and {allowed.log_var:.0e} are allowed"
                )
            for file in Path(temporary).iterdir():
                file.replace(folder / file.name)
        lines.append(f"{path.name}: {found.mean:.1e} (mean) and {found.log_var:.1e} (log variance) from torch, at most")
    return lines


def _export(tower: nn.Module, inputs: Tensor, name: str, metadata: dict[str, str], path: Path) -> None:
    _package("onnxscript")
    dynamic = ({0: torch.export.Dim("batch")},)
    names = {"input_names": [name], "output_names": ["mean", "log_var"]}
    try:
        with torch.no_grad():
            program = torch.onnx.export(tower, (inputs,), dynamic_shapes=dynamic, dynamo=True, verbose=False, **names)
    except torch.onnx.OnnxExporterError as error:
        raise UserError(f"{path.name}: torch cannot export this architecture: {str(error).splitlines()[0]}") from error
    assert program is not None
    program.model.metadata_props.update(metadata)
    size = sum(parameter.numel() * parameter.element_size() for parameter in tower.parameters())
    program.save(path, external_data=size > _LARGEST_FILE)


def _difference(path: Path, inputs: dict[str, Any], expected: Gaussian) -> Difference:
    """Largest differences of the file's outputs in onnxruntime on the CPU."""
    runtime = _package("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # a hint for every operator that it cannot fold in half precision
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    found = session.run(["mean", "log_var"], inputs)
    return Difference(*(_largest(ours, theirs.numpy()) for ours, theirs in zip(found, expected, strict=True)))


def _largest(found: Any, expected: Any) -> float:
    """Largest difference; infinities that are equal, the log variances of points, differ by 0."""
    with np.errstate(invalid="ignore"):
        return float(np.where(found == expected, 0.0, np.abs(found - expected)).max())


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise UserError(f"{name} is not installed: pip install 'prolip[onnx]'") from error
