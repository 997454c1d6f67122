"""Write both towers of a model as ONNX files, and check them in onnxruntime.

image.onnx takes `images`: float32 [B, 3, height, width], normalised; or uint8 [B, height, width, 3], decoded pixels,
which it normalises itself. With native aspect it takes `patches`, [B, P, side * side * 3] of the same types, and
`grids`, int64 [B, 2]: padded rows of patches, and rows and columns of patches in each image. text.onnx takes
`token_ids`: int64 [B, L], padded to the full context. Both return `mean`, float32 [B, D] of unit length, and `log_var`,
float32 [B, D].

B batch, P patches of the longest image, L tokens, D embedding.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from prolip.data.config import TokenizerConfig
from prolip.errors import UserError
from prolip.gaussian import Gaussian
from prolip.images.tensors import OPENAI_MEAN, OPENAI_STD, Patches
from prolip.interop.config import OnnxConfig, OnnxPrecision
from prolip.interop.tokenizer_json import complete_tokenizer
from prolip.models import ProLIP
from prolip.models.hub import CARD_FILE, TOKENIZER_FILE, ModelCard
from prolip.models.prolip import normalised
from prolip.pretrained.build_with_open_clip import root_messages

logger = logging.getLogger(__name__)

IMAGE_FILE = "image.onnx"
TEXT_FILE = "text.onnx"
_USAGE = """from onnxruntime import InferenceSession
from tokenizers import Tokenizer

image = InferenceSession("image.onnx")  # {images}
text = InferenceSession("text.onnx")  # token_ids: int64 [batch, {length}]
tokenizer = Tokenizer.from_file("tokenizer.json")
mean, log_var = text.run(None, {{"token_ids": [tokenizer.encode("a cat").ids]}})
"""


class Difference(NamedTuple):
    """From the model in torch and single precision."""

    mean: float
    """Maximum of a mean's component."""
    log_var: float
    """Maximum of a log variance."""


_DTYPES: dict[OnnxPrecision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "int8": torch.float32}
TOLERANCES: dict[OnnxPrecision, Difference] = {
    "fp32": Difference(1e-4, 1e-4),
    "fp16": Difference(2e-3, 2e-2),
    "int8": Difference(5e-2, 0.3),
}
"""Maxima of an export."""
_IN_SINGLE_PRECISION = {
    *("ln_post", "proj", "attn_pool", "uncertainty_proj"),
    *("ln_final", "text_projection", "text_uncertainty_projection"),
    "head",
}
"""Parts of the last layers' names."""
_LARGEST_FILE = 2_000_000_000
"""A protobuf holds 2 GiB; weights of larger towers go into a file beside it."""


class _Tower(nn.Module):
    """Blocks have the given dtype; unit means are in single precision."""

    def __init__(self, encoder: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.encoder = encoder
        if dtype != torch.float32:
            self.encoder = copy.deepcopy(encoder)
            for name, parameter in self.encoder.named_parameters():
                if not _IN_SINGLE_PRECISION & set(name.split(".")):
                    parameter.data = parameter.data.to(dtype)
        self.eval()

    def forward(self, inputs: Tensor, grids: Tensor | None = None) -> Gaussian:
        if inputs.dtype == torch.uint8:
            mean, std = (torch.tensor(values).repeat(inputs.shape[-1] // 3) for values in (OPENAI_MEAN, OPENAI_STD))
            inputs = (inputs.float() / 255.0 - mean) / std
            inputs = inputs.permute(0, 3, 1, 2) if grids is None else inputs
        inputs = inputs.to(self.dtype) if inputs.is_floating_point() else inputs
        return normalised(self.encoder(inputs if grids is None else Patches.of_grids(inputs, grids)))


def save_onnx(model: ProLIP, tokenizer: TokenizerConfig, folder: Path, card: ModelCard, config: OnnxConfig) -> None:
    """Write image.onnx, text.onnx, tokenizer.json and a model card; errors as for `write_towers`."""
    found = write_towers(model, folder, config)
    complete_tokenizer(tokenizer).save(str(folder / TOKENIZER_FILE))
    checked = {name: f"{one.mean:.1e} in a mean, {one.log_var:.1e} in a log variance" for name, one in found.items()}
    for name, difference in checked.items():
        logger.info("%s: onnxruntime differs from torch by at most %s", name, difference)
    vision, kind = model.config.vision, "uint8" if config.uint8_images else "normalised float32"
    height, width = vision.height_and_width
    shape = f"{height}, {width}, 3" if config.uint8_images else f"3, {height}, {width}"
    images = f"images: {kind} [batch, {shape}]"
    if vision.image_seq_len is not None:
        images = f"patches: {kind} [batch, patches, {3 * vision.patch_size**2}]; grids: int64 [batch, 2]"
    card = dataclasses.replace(
        card,
        library="onnx",
        usage=_USAGE.format(images=images, length=model.config.text.context_length),
        settings={f"Maximum differences from torch, in {config.precision}": checked, **card.settings},
    )
    text = card.text(model.config, sum(parameter.numel() for parameter in model.parameters()))
    (folder / CARD_FILE).write_text(text, encoding="utf-8")


def write_towers(model: ProLIP, folder: Path, config: OnnxConfig) -> dict[str, Difference]:
    """Write image.onnx and text.onnx; returns the maximum difference of each, run in onnxruntime, from torch.

    The number of items in a batch is free. A tower of more than 2 GB has its weights in NAME.onnx.data. The files'
    metadata hold `logit_scale` and, if the model has one, `logit_bias`.

    Raises:
        UserError: the packages of the extra `onnx` are missing; torch cannot export the architecture; or onnxruntime
            returns different numbers than torch.
    """
    model = model.eval().cpu()
    vision, text = model.config.vision, model.config.text
    noise = torch.Generator().manual_seed(0)
    height, width = vision.height_and_width
    shape: tuple[int, ...] = (5, height, width, 3) if config.uint8_images else (5, 3, height, width)
    if vision.image_seq_len is not None:
        shape = (5, vision.image_seq_len, 3 * vision.patch_size**2)
    if config.uint8_images:
        pixels = torch.randint(0, 256, shape, generator=noise, dtype=torch.uint8)
    else:
        pixels = torch.randn(shape, generator=noise)
    images = {"images": pixels}
    if vision.image_seq_len is not None:
        rows = torch.arange(1, 6).clamp(max=vision.image_seq_len)
        images = {"patches": pixels, "grids": torch.stack([rows, vision.image_seq_len // rows], 1)}
    ids = torch.randint(0, text.vocab_size, (5, text.context_length), generator=noise)
    metadata = {"logit_scale": repr(float(model.logit_scale.detach().exp()))}
    if model.logit_bias is not None:
        metadata["logit_bias"] = repr(float(model.logit_bias.detach()))
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        for name, encoder, inputs in (
            (IMAGE_FILE, model.visual, images),
            (TEXT_FILE, model.text, {"token_ids": ids}),
        ):
            path = Path(temporary) / name
            _export(_Tower(encoder, _DTYPES[config.precision]), inputs, metadata, path)
            if config.precision == "int8":
                with root_messages(logging.ERROR):  # it advises an optional pass
                    _package("onnxruntime.quantization").quantize_dynamic(path, path, per_channel=True)
                path.with_name(f"{name}.data").unlink(missing_ok=True)
            found[name] = _difference(path, _Tower(encoder, torch.float32), inputs)
            allowed = TOLERANCES[config.precision]
            # Written so that NaN fails.
            if not (found[name].mean <= allowed.mean and found[name].log_var <= allowed.log_var):
                raise UserError(name, f"onnxruntime must equal torch within {allowed}", found[name])
        for name in found:  # an earlier export may have left it
            (folder / f"{name}.data").unlink(missing_ok=True)
        for file in Path(temporary).iterdir():
            file.replace(folder / file.name)
    return found


def _export(tower: nn.Module, inputs: dict[str, Tensor], metadata: dict[str, str], path: Path) -> None:
    """Traced with two items, since torch may treat one as a constant."""
    _package("onnxscript")
    free: tuple[dict[int, Any], ...] = ({0: torch.export.Dim("batch")},)
    if "grids" in inputs:
        free = ({**free[0], 1: torch.export.Dim("patches")}, {0: torch.export.Dim.AUTO})
    try:
        with torch.no_grad():
            program = torch.onnx.export(
                tower,
                tuple(tensor[:2] for tensor in inputs.values()),
                dynamic_shapes=free,
                input_names=list(inputs),
                output_names=["mean", "log_var"],
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise UserError(path.name, f"torch cannot export this architecture: {str(error).splitlines()[0]}") from error
    assert program is not None
    graph = program.model.graph
    parts: list[Any] = [graph, *graph.all_nodes(), *graph.inputs, *graph.initializers.values()]
    for part in parts:
        part.metadata_props.clear()  # stack traces with paths of this machine
    program.model.metadata_props.update(metadata)
    size = sum(parameter.numel() * parameter.element_size() for parameter in tower.parameters())
    program.save(path, external_data=size > _LARGEST_FILE)


def _difference(path: Path, tower: nn.Module, inputs: dict[str, Tensor]) -> Difference:
    with torch.no_grad():
        expected = tower(*inputs.values())
    runtime = _package("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # hide hints about operators that it cannot fold in half precision
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    found = session.run(["mean", "log_var"], {name: tensor.numpy() for name, tensor in inputs.items()})
    return Difference(*(_maximum(ours, theirs.numpy()) for ours, theirs in zip(found, expected, strict=True)))


def _maximum(found: Any, expected: Any) -> float:
    """Equal infinities, the log variances of points, differ by 0."""
    with np.errstate(invalid="ignore"):
        return float(np.where(found == expected, 0.0, np.abs(found - expected)).max())


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise UserError(name, "not installed; pip install 'prolip[onnx]'") from error
