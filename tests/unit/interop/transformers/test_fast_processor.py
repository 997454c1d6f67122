"""`fast_processor` gives the slow processors' values, to the last bit."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from tests.parity.test_exact_pixels import FILES, PROCESSORS
from tests.support.images import encode, noise
from tests.support.refusals import refusal_of
from transformers import AutoImageProcessor, DonutImageProcessor, ViTConfig, ViTModel, pipeline
from transformers.models.clip.image_processing_clip import CLIPImageProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip2.image_processing_siglip2 import Siglip2ImageProcessor
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from prolip.interop.transformers import fast_processor


def see_through(mode, kind, **options):
    image = noise(11, (50, 40)).convert("RGBA")
    image.putalpha(noise(12, (50, 40)).convert("L"))
    return encode(image.convert(mode), kind, **options)


ALPHA = {
    "rgba": see_through("RGBA", "png"),
    "la": see_through("LA", "png"),
    "webp": see_through("RGBA", "webp", lossless=True),
    "palette with a transparent colour": encode(noise(13).convert("P"), "png", transparency=3),
    "gif": encode(noise(14).convert("P"), "gif", transparency=3),
}


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        other = found[name]
        assert type(other) is type(value), name
        both = [np.stack(rows) if isinstance(rows, list) else rows for rows in (other, value)]
        assert both[0].dtype == both[1].dtype, name
        assert np.array_equal(*both), name


# transformers leaves the files open that it is named.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("slow", PROCESSORS, ids=lambda slow: type(slow).__name__)
@pytest.mark.parametrize("tensors", ["pt", "np", None])
def test_values_equal_the_slow_processors(slow, tensors, tmp_path):
    fast = fast_processor(slow)
    converts = bool(slow.do_convert_rgb)
    files = (
        {**FILES, **ALPHA} if converts else {n: f for n, f in FILES.items() if n in {"jpeg", "turned", "wide", "row"}}
    )
    opened = [Image.open(io.BytesIO(data)) for data in files.values()]
    expected = slow(opened, return_tensors=tensors)
    for given in ([*files.values()], opened):
        same(fast(given, return_tensors=tensors), expected)
    image = np.asarray(opened[0])
    for one in (image, image.transpose(2, 0, 1), torch.from_numpy(image.copy()), np.stack([image, image]), opened[0]):
        same(fast(one, return_tensors=tensors), slow(one, return_tensors=tensors))
    paths = []
    for name, data in files.items():
        paths.append(str(tmp_path / name))
        (tmp_path / name).write_bytes(data)
    same(fast(paths, return_tensors=tensors), slow(paths, return_tensors=tensors))
    for mixed in ([paths[1], opened[0]], [opened[0], paths[1]]):
        same(fast(mixed, return_tensors=tensors), slow(mixed, return_tensors=tensors))


def test_settings_in_a_call_are_followed_or_refused():
    slow = CLIPImageProcessorPil()
    fast, image = fast_processor(slow), FILES["jpeg"]
    opened = Image.open(io.BytesIO(image))
    for settings in ({"size": 30, "crop_size": 28}, {"do_normalize": False}, {"do_rescale": False}, {"resample": 2}):
        if settings.get("size"):
            settings["size"] = {"shortest_edge": 30}
        same(fast(image, return_tensors="np", **settings), slow(opened, return_tensors="np", **settings))
    for field, settings in (
        ("do_resize", {"do_resize": False}),
        ("do_center_crop", {"do_center_crop": False}),
        ("do_pad", {"do_pad": True}),
        ("do_rescale", {"do_rescale": False, "do_normalize": False}),
    ):
        with refusal_of(field):
            fast(image, **settings)
    with refusal_of("images"):
        fast(np.zeros((9, 9, 3), np.float32))
    with refusal_of("images"):
        fast_processor(ViTImageProcessorPil())(FILES["grey"])
    with refusal_of("do_center_crop"):
        fast_processor(CLIPImageProcessorPil(do_center_crop=False))
    with refusal_of("image_processor"):
        fast_processor(DonutImageProcessor())


@pytest.mark.parametrize("kind", [CLIPImageProcessor, Siglip2ImageProcessor])
def test_a_torchvision_processor_becomes_the_slow_ones_equal(kind, tmp_path):
    kind().save_pretrained(tmp_path)
    slow = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    expected = slow(Image.open(io.BytesIO(FILES["turned"])), return_tensors="pt")
    for source in (kind(), tmp_path, str(tmp_path)):
        same(fast_processor(source)(FILES["turned"], return_tensors="pt"), expected)
    fast_processor(tmp_path).save_pretrained(tmp_path / "again")
    again = AutoImageProcessor.from_pretrained(tmp_path / "again", backend="pil")
    assert (type(again), again.to_dict()) == (type(slow), slow.to_dict())


def test_a_pipeline_takes_it():
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    model, slow = (
        ViTModel(ViTConfig(image_size=32, **sizes)).eval(),
        ViTImageProcessorPil(size={"height": 32, "width": 32}),
    )
    images = [Image.open(io.BytesIO(FILES[name])) for name in ("jpeg", "wide")]
    found, expected = (
        pipeline("image-feature-extraction", model=model, image_processor=processor, device="cpu")(images)
        for processor in (fast_processor(slow), slow)
    )
    assert found == expected
