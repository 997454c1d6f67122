"""ONNX files of both towers: onnxruntime gives torch's Gaussians, for any batch and every architecture option."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tests.support.datacomp_sets import write_open_clip
from tests.support.frozen_pairs import made_up, write_pairs

import prolip
from prolip.cli import main
from prolip.gaussian import Gaussian
from prolip.images.tensors import OPENAI_MEAN, OPENAI_STD, Patches
from prolip.interop import onnx as onnx_module
from prolip.interop.config import OnnxConfig
from prolip.interop.onnx import TOLERANCES, write_towers
from prolip.models import ARCHITECTURES, ProLIP


def small(config, **changes):
    """The options of an architecture at a size that exports in seconds: each block takes two of them."""
    vision = {
        "layers": 1,
        "width": 32,
        "head_width": 16,
        "patch_size": 8,
        "image_size": 24,
        **changes.get("vision", {}),
    }
    text = {"layers": 1, "width": 32, "heads": 2, "context_length": 9, "vocab_size": 50, **changes.get("text", {})}
    return replace(config, embed_dim=32, vision=replace(config.vision, **vision), text=replace(config.text, **text))


B_16, H_14 = ARCHITECTURES["ViT-B-16"], ARCHITECTURES["ViT-H-14"]
# Options of released models, then those of CLIP and SigLIP starts. test_examples.py exports a released one.
CASES = {
    "ViT-B-16": (small(B_16, vision={"layers": 2}, text={"layers": 2}), OnnxConfig()),
    "ViT-H-14": (small(H_14), OnnxConfig(precision="fp16", uint8_images=True)),
    "clip": (
        small(
            H_14,
            text={"embed_cls": False, "no_causal_mask": False, "pool_type": "argmax", "proj_bias": False},
            vision={"image_size": (24, 16), "ls_init_value": 0.5, "embed_unc": False},
        ),
        OnnxConfig(),
    ),
    "int8": (small(B_16, vision={"layers": 2}, text={"layers": 2}), OnnxConfig(precision="int8", uint8_images=True)),
    "siglip": (
        small(
            B_16,
            vision={"pool_type": "map", "no_ln_pre": True, "gelu": "tanh", "unc_seen": False},
            text={"embed_cls": False, "pool_type": "last", "unc_seen": False, "log_var_source": "unc"},
        ),
        OnnxConfig(uint8_images=True),
    ),
    "siglip2": (
        small(
            B_16,
            vision={"pool_type": "map", "no_ln_pre": True, "gelu": "tanh", "unc_seen": False, "image_seq_len": 12},
            text={"embed_cls": False, "pool_type": "last", "unc_seen": False, "log_var_source": "unc"},
        ),
        OnnxConfig(uint8_images=True),
    ),
}


LARGE = "siglip"
"""The case whose towers are taken for too large for a file: their weights lie beside it."""


def new_model(config):
    torch.manual_seed(0)
    model = ProLIP(config).eval()
    for parameter in model.parameters():  # biases and variances differ between items
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def run(path, **inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return Gaussian(*map(torch.from_numpy, session.run(["mean", "log_var"], inputs)))


GRIDS = ((3, 4), (1, 9), (5, 2), (2, 2), (4, 3), (1, 1), (12, 1))
"""Rows and columns of images with native aspect."""


def images_of(config, count, *, uint8):
    """Images for our tower and for onnxruntime."""
    generator, is_native = np.random.default_rng(1), config.vision.image_seq_len is not None
    shapes = [(8 * rows, 8 * columns) for rows, columns in GRIDS] if is_native else [config.vision.height_and_width] * 7
    pixels = [torch.from_numpy(generator.integers(0, 256, (3, *shape), dtype=np.uint8)) for shape in shapes[:count]]
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (OPENAI_MEAN, OPENAI_STD))
    normalised = [((image.double() / 255 - mean) / std).float() for image in pixels]
    given = pixels if uint8 else normalised
    if is_native:
        cut = Patches.of(given, 8)
        return Patches.of(normalised, 8), {"patches": cut.patches.numpy(), "grids": cut.grids.numpy()}
    stacked = torch.stack(given)
    return torch.stack(normalised), {"images": (stacked.permute(0, 2, 3, 1) if uint8 else stacked).numpy()}


@pytest.mark.usefixtures("one_table")
@pytest.mark.parametrize("name", CASES)
def test_onnxruntime_outputs_equal_torchs_gaussians(tmp_path, monkeypatch, name):
    config, settings = CASES[name]
    files = {"image.onnx", "text.onnx"}
    if name == LARGE:
        monkeypatch.setattr(onnx_module, "_LARGEST_FILE", 1000)
        files |= {"image.onnx.data", "text.onnx.data"}
    model = new_model(config)
    (tmp_path / "image.onnx.data").write_text("of an earlier, larger export")
    write_towers(model, tmp_path, settings)
    assert {path.name for path in tmp_path.iterdir()} == files
    allowed = TOLERANCES[settings.precision]
    for count in (1, 7):
        images, given = images_of(config, count, uint8=settings.uint8_images)
        ids = torch.randint(0, config.text.vocab_size, (count, config.text.context_length))
        with torch.no_grad():
            expected = model.encode_image(images), model.encode_text(ids)
        found = run(tmp_path / "image.onnx", **given), run(tmp_path / "text.onnx", token_ids=ids.numpy())
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.mean.dtype == ours.log_var.dtype == torch.float32
            torch.testing.assert_close(ours.mean, theirs.mean, rtol=0, atol=allowed.mean)
            torch.testing.assert_close(ours.log_var, theirs.log_var, rtol=0, atol=allowed.log_var)
            assert (ours.mean * theirs.mean).sum(1).mean() > 0.99
    for file, tower in (("image.onnx", model.visual), ("text.onnx", model.text)):
        weights = sum(parameter.numel() for parameter in tower.parameters())
        low = sum(
            math.prod(tensor.dims)
            for tensor in onnx.load(tmp_path / file).graph.initializer
            if tensor.data_type in (onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
        )
        assert (0.8 * weights < low < weights) if settings.precision != "fp32" else (low == 0)
        assert str(Path(prolip.__file__).parent).encode() not in (tmp_path / file).read_bytes()
        metadata = onnxruntime.InferenceSession(tmp_path / file).get_modelmeta().custom_metadata_map
        assert float(metadata["logit_scale"]) == pytest.approx(float(model.logit_scale.detach().exp()), rel=1e-12)
        assert float(metadata["logit_bias"]) == pytest.approx(float(model.logit_bias.detach()), rel=1e-12)


@pytest.mark.usefixtures("one_table")
def test_files_of_an_adapted_model_include_the_heads(tmp_path):
    pairs = write_pairs(tmp_path / "pairs", *made_up(30, 16))
    adapt = f"--embeddings {pairs} --checkpoint {write_open_clip(tmp_path / 'clip')} --heads.steps 3 --heads.hidden 4"
    assert main(f"adapt {adapt} --out {tmp_path}/adapted".split()) == 0
    assert main(f"export {tmp_path}/adapted --out {tmp_path}/onnx --format onnx".split()) == 0
    model, texts = prolip.load(tmp_path / "adapted", device="cpu"), ["a photo of a red fox", "a car"]
    images = torch.randn(3, 3, *model.preprocess.sides, generator=torch.Generator().manual_seed(0))
    for name, given, expected in (
        ("image", {"images": images.numpy()}, model.encode_images(images, progress=False)),
        ("text", {"token_ids": model.tokenize(texts).numpy()}, model.encode_texts(texts, progress=False)),
    ):
        for ours, theirs in zip(run(tmp_path / "onnx" / f"{name}.onnx", **given), expected, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)
