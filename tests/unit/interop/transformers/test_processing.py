"""The processors give the loader's pixels and token ids."""

import base64
import io

import numpy as np
import PIL
import pytest
import torch
from PIL import Image
from tests.parity.test_exact_pixels import FILES, turned
from tests.support.images import encode, noise
from tests.support.native_pixels import native_pixels
from tests.support.untrained_run import WORDS
from tests.unit.interop.transformers.test_fast_processor import ALPHA, same
from tokenizers import Tokenizer as JsonTokenizer, models, pre_tokenizers, processors
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer

from prolip.data import preprocess_image
from prolip.data.config import TokenizerConfig
from prolip.data.tokenizer import Tokenizer
from prolip.images.tensors import OPENAI_MEAN, OPENAI_STD, Patches
from prolip.inference.tokenizer import choose_tokenizer
from prolip.interop.transformers import ProLIPImageProcessor, ProLIPProcessor, ProLIPTokenizer, processing
from prolip.interop.transformers.folder import transformers_tokenizer
from prolip.models import TextConfig
from prolip.pretrained.sources import resolve

SIDE = 24
CAPTIONS = [
    "A photo of a Cat!",
    "it's don't I'LL 123 4.5 <b> &amp; Ünïcode 漢字 🐱🐱",
    "",
    "! ! !!",
    "a picture of travel, and food " * 12 + "an emoji",
    "<start_of_text> hi <end_of_text>",
    "ſ 'ſ ² Ⅷ x²  â€œquotedâ€\x9d",
]


def _encoded(size, mode, kind):
    generator = np.random.default_rng(sum(size))
    image = Image.fromarray(generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)
    if kind == "rotated":
        exif = image.getexif()
        exif[0x0112] = 6
        return encode(image, "jpeg", exif=exif)
    return encode(image, kind)


@pytest.mark.parametrize("size", [(24, 24), (31, 24), (90, 41), (40, 91), (11, 7), (300, 299)])
@pytest.mark.parametrize(
    ("mode", "kind"), [("RGB", "png"), ("RGB", "rotated"), ("RGBA", "png"), ("P", "png"), ("L", "png")]
)
def test_processed_pixels_equal_the_loaders(size, mode, kind, tmp_path):
    if int(PIL.__version__.split(".", maxsplit=1)[0]) < 13 and size[1] > 2 * size[0]:
        pytest.skip("Pillow resized tall images in another order before 13")
    data = _encoded(size, mode, kind)
    (tmp_path / "image").write_bytes(data)
    expected = (preprocess_image(data, SIDE) / np.float32(255.0) - np.float32(OPENAI_MEAN)) / np.float32(OPENAI_STD)
    processor = ProLIPImageProcessor(size={"shortest_edge": SIDE})
    for image in (Image.open(io.BytesIO(data)), tmp_path / "image", str(tmp_path / "image")):
        found = processor(image, return_tensors="np")["pixel_values"]
        np.testing.assert_allclose(found[0].transpose(1, 2, 0), expected, rtol=0, atol=1e-6)
    native = ProLIPImageProcessor(patch_size=4, max_num_patches=30)(tmp_path / "image", return_tensors="pt")
    pixels = (native_pixels(data, 4, 30) / np.float32(255.0) - np.float32(OPENAI_MEAN)) / np.float32(OPENAI_STD)
    cut = Patches.of(torch.from_numpy(pixels).permute(2, 0, 1)[None], 4)
    length = cut.patches.shape[1]
    assert torch.equal(native["spatial_shapes"], cut.grids)
    assert native["pixel_attention_mask"].tolist() == [[1] * length + [0] * (30 - length)]
    torch.testing.assert_close(native["pixel_values"][:, :length], cut.patches, rtol=0, atol=1e-6)


@pytest.mark.parametrize("tensors", ["pt", "np"])
@pytest.mark.parametrize(
    "settings",
    [
        {"size": {"shortest_edge": SIDE}},
        {"size": {"shortest_edge": 45}, "resample": 2, "image_mean": (0.1, 0.2, 0.3), "image_std": (0.4, 0.5, 0.6)},
        {"patch_size": 5, "max_num_patches": 31},
        {"patch_size": 16, "max_num_patches": 256, "resample": 2, "image_mean": (0.5,) * 3, "image_std": (0.5,) * 3},
    ],
)
def test_prolip_gives_the_values_that_pillow_gives_without_it(settings, tensors, tmp_path, monkeypatch):
    files = {
        **FILES,
        **ALPHA,
        "bits": encode(noise(20).convert("1"), "png"),
        "deep": encode(noise(21).convert("I;16"), "png"),
        "turned png": encode(noise(22), "png", exif=turned(8)),
        "turned webp": encode(noise(23), "webp", exif=turned(5)),
        "moving": encode(noise(24), "webp", save_all=True, append_images=[noise(25)]),
        "icon": encode(noise(27), "ico"),
        "broken": FILES["wide"][:300],
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    pixels = np.asarray(noise(26, (33, 52)))
    given = [
        *(Image.open(io.BytesIO(data)) for name, data in files.items() if name != "broken"),
        *(pixels, pixels.transpose(2, 0, 1), torch.from_numpy(pixels.copy()), pixels[..., :1], pixels / 255),
        "data:image/jpeg;base64," + base64.b64encode(FILES["turned"]).decode(),
        *(tmp_path / name for name in files if name not in {"tiff", "gif", "icon", "broken"}),
        str(tmp_path / "turned"),
    ]
    others = [*given[-2:], tmp_path / "gif", tmp_path / "icon"]
    processor = ProLIPImageProcessor(**settings)

    def found():
        with pytest.raises(OSError, match="truncated") as error:
            processor([given[0], tmp_path / "broken"], return_tensors=tensors)
        return str(error.value), [processor(images, return_tensors=tensors) for images in (given, given[-1], others)]

    ours = found()
    with monkeypatch.context() as patch:
        patch.setattr(processing, "Preprocess", None)
        expected = found()
    assert ours[0] == expected[0]
    for one, other in zip(ours[1], expected[1], strict=True):
        same(one, other)
    # So those were not Pillow's in both.
    for name in ("_square", "Siglip2ImageProcessorPil"):
        monkeypatch.setattr(processing, name, None)
    same(processor(given, return_tensors=tensors), expected[1][0])


def _word_file(folder):
    words = {word: place for place, word in enumerate([*WORDS, "<s>", "</s>"])}
    tokenizer = JsonTokenizer(models.WordLevel(words, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", words["<s>"]), ("</s>", words["</s>"])]
    )
    tokenizer.enable_padding(direction="left", pad_id=1, length=3)
    tokenizer.enable_truncation(4, direction="left")
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def _settings(name, folder):
    if name == "clip":
        return TokenizerConfig(context_length=12)
    file = _word_file(folder)
    if name == "canonicalize":
        return TokenizerConfig(kind="file", path=file, context_length=9, clean="canonicalize", pad_id=0)
    (folder / "tokenizer_config.json").write_text(
        '{"pad_token": "</s>", "padding_side": "right", "truncation_side": "right"}'
    )
    return TokenizerConfig(kind="file", path=file, context_length=9, clean="whitespace")


@pytest.mark.parametrize("name", ["clip", "canonicalize", "beside"])
def test_token_ids_equal_our_tokenizers(name, tmp_path):
    settings = _settings(name, tmp_path)
    expected = Tokenizer(settings).encode(CAPTIONS)
    made = transformers_tokenizer(settings)
    made.save_pretrained(tmp_path / "saved")
    again = ProLIPTokenizer.from_pretrained(tmp_path / "saved")
    for tokenizer in (made, again):
        assert np.array_equal(tokenizer(CAPTIONS, return_tensors="np")["input_ids"], expected)
        # What pipelines and scripts for other models ask for has no effect.
        asked = tokenizer(CAPTIONS, return_tensors="np", padding=True, truncation=True, max_length=3)
        assert np.array_equal(asked["input_ids"], expected)
        assert tokenizer(CAPTIONS[0])["input_ids"] == expected[0].tolist()
    assert len(again) == len(made) == Tokenizer(settings).vocab_size
    # `prolip.load` reads the same settings.
    text = TextConfig(context_length=settings.context_length, vocab_size=len(made))
    assert np.array_equal(Tokenizer(choose_tokenizer(resolve(tmp_path / "saved"), text)).encode(CAPTIONS), expected)


def test_the_auto_classes_load_a_saved_processor(tmp_path):
    images = ProLIPImageProcessor(size={"shortest_edge": SIDE}, image_mean=(0.1, 0.2, 0.3), image_std=(0.4, 0.5, 0.6))
    ProLIPProcessor(images, transformers_tokenizer(TokenizerConfig(context_length=12))).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "prolip"}')
    assert type(AutoTokenizer.from_pretrained(tmp_path)) is ProLIPTokenizer
    assert type(AutoImageProcessor.from_pretrained(tmp_path)) is ProLIPImageProcessor
    back = AutoProcessor.from_pretrained(tmp_path)
    assert type(back) is ProLIPProcessor
    assert (back.image_processor.size, back.image_processor.image_mean) == ({"shortest_edge": SIDE}, [0.1, 0.2, 0.3])
    image = Image.new("RGB", (40, 30), "red")
    both = back(images=[image, image], text=["a cat", "a dog", "an owl"], return_tensors="pt")
    assert {name: tuple(value.shape) for name, value in both.items()} == {
        "input_ids": (3, 12),
        "pixel_values": (2, 3, SIDE, SIDE),
    }
    assert set(back(text="a cat", return_tensors="pt")) == {"input_ids"}
