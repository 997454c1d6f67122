"""`prolip.pixels`: the values of open_clip, timm and transformers' slow processors, to the bit before normalisation."""

import io
import json
import random

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from tests.support.images import encode, noise
from tests.support.refusals import refusal_of
from timm.data.transforms_factory import create_transform
from transformers import AutoImageProcessor
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from prolip.images.tensors import Patches
from prolip.pixels import Preprocess


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


FILES = {
    "jpeg": encode(noise(1, (61, 44)), "jpeg"),
    "turned": encode(noise(2, (90, 41)), "jpeg", exif=turned(6)),
    "grey": encode(noise(3, (33, 70)).convert("L"), "jpeg"),
    "cmyk": encode(noise(4, (52, 53)).convert("CMYK"), "jpeg"),
    "palette": encode(noise(5, (40, 31)).convert("P"), "png"),
    "wide": encode(noise(6, (200, 9)), "png"),
    "row": encode(noise(7, (37, 1)), "png"),
    "column": encode(noise(8, (1, 23)), "webp", lossless=True),
    "tiff": encode(noise(9, (28, 45)), "tiff"),
}


def differing(found, expected, std):
    """Share of values that differ as levels of 8 bits, and the largest difference of the floats."""
    gap = (found - expected).abs() * torch.as_tensor(std).view(-1, 1, 1) * 255
    return float((gap > 0.01).float().mean()), float((found - expected).abs().max())


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pixels_equal_open_clips_and_timms(mode, interpolation):
    draw = random.Random(mode + interpolation)
    for name, data in FILES.items():
        for _ in range(4):
            height, width, share = draw.randint(9, 50), draw.randint(9, 50), draw.choice([0.8, 0.95, 1.0])
            width = draw.choice([height, width])
            image = Image.open(io.BytesIO(data)).convert("RGB")
            open_clip = {"size": (height, width), "resize_mode": mode, "interpolation": interpolation, "fill_color": 7}
            timm = {"input_size": (3, height, width), "crop_pct": share, "interpolation": interpolation}
            timm |= {"crop_mode": {"shortest": "center", "longest": "border"}.get(mode, mode), "mean": (0.5, 0.4, 0.3)}
            both = ((open_clip, image_transform_v2(PreprocessCfg(**open_clip), is_train=False)),)
            for settings, transform in (*both, (timm, create_transform(**timm))):
                try:
                    expected = transform(image)
                except ValueError:  # theirs makes a side of a thin image 0
                    assert min(image.size) == 1
                    continue
                ours = Preprocess.of(settings)
                pixels = ours([data, image], threads=2)
                for found in pixels:
                    assert differing(found, expected, ours.std) == (0, pytest.approx(0, abs=2e-6)), (name, settings)


PROCESSORS = [
    CLIPImageProcessorPil(),
    CLIPImageProcessorPil(size={"shortest_edge": 40}, crop_size={"height": 33, "width": 51}, resample=1),
    BitImageProcessorPil(size={"shortest_edge": 60}, crop_size=54),
    SiglipImageProcessorPil(size={"height": 31, "width": 48}),
    ViTImageProcessorPil(resample=4, size={"height": 32, "width": 32}),
    ViTImageProcessorPil(do_normalize=False, resample=0),
    Siglip2ImageProcessorPil(max_num_patches=37, patch_size=8),
]


@pytest.mark.parametrize("slow", PROCESSORS, ids=lambda slow: type(slow).__name__)
def test_pixels_equal_transformers(slow, tmp_path):
    slow.save_pretrained(tmp_path)
    made = [Preprocess.of(source) for source in (slow, tmp_path, tmp_path / "preprocessor_config.json")]
    assert made[0] == made[1] == made[2]
    images = [Image.open(io.BytesIO(data)).convert("RGB") for data in FILES.values()]
    found = made[0]([*FILES.values()], threads=2)
    expected = slow(images, return_tensors="pt")
    if isinstance(found, Patches):
        assert torch.equal(found.grids, expected["spatial_shapes"])
        assert torch.equal(found.valid, expected["pixel_attention_mask"].bool())
        found = found.patches
    assert differing(found, expected["pixel_values"], 0.5) == (0, pytest.approx(0, abs=2e-6))
    assert found.is_contiguous()


def test_halves_are_the_rounded_floats_and_a_model_is_a_source(tmp_path):
    floats = Preprocess(size=20)(FILES["jpeg"])
    for dtype in (torch.float16, torch.bfloat16):
        torch.testing.assert_close(Preprocess(size=20, dtype=dtype)(FILES["jpeg"]), floats.to(dtype))
    path = tmp_path / "a.jpg"
    path.write_bytes(FILES["turned"])
    upright = np.asarray(Image.open(path).rotate(-90, expand=True))
    assert torch.equal(Preprocess(size=20, turned=True)(path), Preprocess(size=20)(upright))


@pytest.mark.parametrize(
    ("field", "settings"),
    [
        ("resample", {"image_processor_type": "CLIPImageProcessor", "resample": 7}),
        ("do_pad", {"image_processor_type": "ViTImageProcessor", "do_pad": True}),
        ("do_resize", {"image_processor_type": "ViTImageProcessor", "do_resize": False}),
        ("do_center_crop", {"image_processor_type": "CLIPImageProcessor", "do_center_crop": False}),
        ("size", {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 9, "longest_edge": 12}}),
        ("rescale_factor", {"image_processor_type": "ViTImageProcessor", "rescale_factor": 1 / 127.5}),
        ("image_processor_type", {"image_processor_type": "DonutImageProcessor"}),
        ("crop_mode", {"input_size": (3, 8, 8), "crop_mode": "other"}),
        ("resize_mode", {"size": 8, "resize_mode": "other"}),
        ("source", {}),
    ],
)
def test_what_cannot_be_reproduced_is_named(field, settings, tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    for source in (settings, tmp_path):
        with refusal_of(field):
            Preprocess.of(source)


def test_files_from_before_2023_have_plain_sizes(tmp_path):
    clip = {"feature_extractor_type": "CLIPFeatureExtractor", "size": 30, "crop_size": 28, "do_center_crop": True}
    vit = {"feature_extractor_type": "ViTFeatureExtractor", "size": 30, "do_resize": True}
    for settings in (clip, vit):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
        slow = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
        assert Preprocess.of(tmp_path) == Preprocess.of(slow)
