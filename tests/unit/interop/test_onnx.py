"""ONNX files of both towers: onnxruntime gives torch's Gaussians, for any batch and every architecture option."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from prolip.errors import UserError
from prolip.gaussian import Gaussian
from prolip.interop import onnx as onnx_module
from prolip.interop.config import OnnxConfig
from prolip.interop.onnx import TOLERANCES, write_towers
from prolip.models import ARCHITECTURES, ModelConfig, ProLIP
from prolip.normalization import OPENAI_MEAN, OPENAI_STD


def small(config: ModelConfig, **changes: dict[str, Any]) -> ModelConfig:
    """The options of an architecture at a size that exports in seconds."""
    vision = {
        "layers": 2,
        "width": 32,
        "head_width": 16,
        "patch_size": 8,
        "image_size": 24,
        **changes.get("vision", {}),
    }
    text = {"layers": 2, "width": 32, "heads": 2, "context_length": 9, "vocab_size": 50, **changes.get("text", {})}
    return replace(config, embed_dim=32, vision=replace(config.vision, **vision), text=replace(config.text, **text))


B_16, H_14, DEMO = (ARCHITECTURES[name] for name in ("ViT-B-16", "ViT-H-14", "demo"))
OF_OTHERS = {
    "clip": small(
        H_14,
        text={"embed_cls": False, "no_causal_mask": False, "pool_type": "argmax", "proj_bias": False},
        vision={"image_size": (24, 16), "ls_init_value": 0.5},
    ),
    "siglip": small(
        B_16,
        vision={"pool_type": "map", "no_ln_pre": True, "gelu": "tanh"},
        text={"embed_cls": False, "pool_type": "last", "gelu": "tanh"},
    ),
    "unseen": small(
        B_16,
        vision={"unc_seen": False},
        text={"unc_seen": False, "log_var_source": "unc", "embed_cls": False, "pool_type": "eos"},
    ),
    "points": small(B_16, vision={"embed_unc": False}, text={"embed_unc": False, "ls_init_value": 0.5}),
}
CONFIGS = {"ViT-B-16": small(B_16), "ViT-H-14": small(H_14), "demo": small(DEMO), **OF_OTHERS}


def new_model(config: ModelConfig) -> ProLIP:
    torch.manual_seed(0)
    model = ProLIP(config).eval()
    for parameter in model.parameters():  # biases and variances differ between items
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def run(path: Path, **inputs: Any) -> Gaussian:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return Gaussian(*map(torch.from_numpy, session.run(["mean", "log_var"], inputs)))


def pixels_of(config: ModelConfig, count: int) -> np.ndarray:
    size = config.vision.image_size
    height, width = (size, size) if isinstance(size, int) else size
    return np.random.default_rng(1).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def normalised(pixels: np.ndarray) -> torch.Tensor:
    scaled = torch.from_numpy(pixels).permute(0, 3, 1, 2).double() / 255
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (OPENAI_MEAN, OPENAI_STD))
    return ((scaled - mean) / std).float()


@pytest.mark.parametrize("name", CONFIGS)
def test_onnxruntime_gives_torchs_gaussians(tmp_path: Path, name: str) -> None:
    config = CONFIGS[name]
    model = new_model(config)
    write_towers(model, tmp_path, OnnxConfig())
    for count in (1, 7):
        images = normalised(pixels_of(config, count))
        ids = torch.randint(0, config.text.vocab_size, (count, config.text.context_length))
        with torch.no_grad():
            expected = model.encode_image(images), model.encode_text(ids)
        found = run(tmp_path / "image.onnx", images=images.numpy()), run(tmp_path / "text.onnx", token_ids=ids.numpy())
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours.mean, theirs.mean, rtol=0, atol=1e-4)
            torch.testing.assert_close(ours.log_var, theirs.log_var, rtol=0, atol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_pixels_are_normalised_inside_on_request(tmp_path: Path, precision: Any) -> None:
    config = CONFIGS["ViT-B-16"]
    model, pixels = new_model(config), pixels_of(config, 3)
    write_towers(model, tmp_path, OnnxConfig(precision=precision, uint8_images=True))
    with torch.no_grad():
        expected = model.encode_image(normalised(pixels))
    found = run(tmp_path / "image.onnx", images=pixels)
    assert found.mean.dtype == found.log_var.dtype == torch.float32
    torch.testing.assert_close(found.mean, expected.mean, rtol=0, atol=TOLERANCES[precision].mean)
    torch.testing.assert_close(found.log_var, expected.log_var, rtol=0, atol=TOLERANCES[precision].log_var)
    weights = sum(parameter.numel() for parameter in model.visual.parameters())
    size = (tmp_path / "image.onnx").stat().st_size
    assert (size < 4 * weights) == (precision == "fp16")


def test_the_files_carry_scale_and_bias(tmp_path: Path) -> None:
    model = new_model(CONFIGS["demo"])
    write_towers(model, tmp_path, OnnxConfig())
    for name in ("image.onnx", "text.onnx"):
        metadata = onnxruntime.InferenceSession(tmp_path / name).get_modelmeta().custom_metadata_map
        assert float(metadata["logit_scale"]) == pytest.approx(float(model.logit_scale.detach().exp()), rel=1e-12)
        assert model.logit_bias is not None
        assert float(metadata["logit_bias"]) == pytest.approx(float(model.logit_bias.detach()), rel=1e-12)


def test_large_towers_keep_their_weights_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_module, "_LARGEST_FILE", 1000)
    config = CONFIGS["demo"]
    model, images = new_model(config), normalised(pixels_of(config, 2))
    write_towers(model, tmp_path, OnnxConfig())
    assert {path.name for path in tmp_path.iterdir()} == {
        *("image.onnx", "image.onnx.data", "text.onnx", "text.onnx.data"),
    }
    with torch.no_grad():
        expected = model.encode_image(images)
    found = run(tmp_path / "image.onnx", images=images.numpy())
    torch.testing.assert_close(found.mean, expected.mean, rtol=0, atol=1e-4)
    monkeypatch.undo()
    write_towers(model, tmp_path, OnnxConfig())
    assert {path.name for path in tmp_path.iterdir()} == {"image.onnx", "text.onnx"}


def test_a_file_that_differs_from_torch_is_not_kept(tmp_path: Path) -> None:
    model = new_model(CONFIGS["demo"])
    assert model.visual.unc_embedding is not None
    model.visual.unc_embedding.data *= 1e6  # more than half precision holds
    with pytest.raises(UserError, match=r"image\.onnx in fp16 differs from torch by .* are allowed"):
        write_towers(model, tmp_path, OnnxConfig(precision="fp16"))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"onnxscript is not installed: pip install 'prolip\[onnx\]'"):
        write_towers(new_model(CONFIGS["demo"]), tmp_path, OnnxConfig())
