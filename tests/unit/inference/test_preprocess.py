"""One image of any kind: the loader's pixels, which are Pillow's; unreadable images are named."""

import io
import struct
import sys
import zlib

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import ExifTags, Image
from tests.support import forked
from tests.support.images import encode, noise, png_chunk

from prolip.data import DataError, preprocess_image
from prolip.errors import UserError
from prolip.pixels import Preprocess

SIZE = 24
PREPROCESS = Preprocess(size=SIZE)


def with_pillow(image):
    """Shortest side to SIZE by Pillow's bicubic filter, then the centre, as torchvision does it."""
    transform = image_transform_v2(PreprocessCfg(size=SIZE, mean=(0, 0, 0), std=(1, 1, 1)), is_train=False)
    pixels = (transform(image) * 255).round().byte().permute(1, 2, 0).numpy()
    return pixels


@pytest.mark.parametrize("size", [(61, 44), (24, 24), (9, 100)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "LA", "1"])
def test_every_kind_of_image_gives_the_same_pixels(mode, size):
    image = noise(7, size).convert(mode)
    png = encode(image, "png")
    rgb = image.convert("RGB")
    array = np.asarray(rgb)
    kinds = {
        "bytes": png,
        "image": image,
        "lazy image": Image.open(io.BytesIO(png)),
        "array": array,
        "strided array": np.ascontiguousarray(array[::-1])[::-1],
        "tensor": torch.from_numpy(array.copy()).permute(2, 0, 1),
    }
    expected = with_pillow(rgb)
    for kind, given in kinds.items():
        assert np.array_equal(PREPROCESS.decode(given, kind)[0].numpy(), expected), kind
    assert np.array_equal(preprocess_image(png, SIZE), expected)


@pytest.mark.parametrize("kind", ["tiff", "gif", "bmp"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
def test_formats_that_only_pillow_decodes_are_accepted(kind, mode):
    image = noise(2).convert(mode)
    image.info |= {} if mode == "RGB" else {"transparency": 0}
    data = encode(image, kind)
    opened = Image.open(io.BytesIO(data))
    expected = with_pillow(opened.convert("RGB"))
    for given in (data, opened):
        assert np.array_equal(PREPROCESS.decode(given, kind)[0].numpy(), expected)


SIDE = 13000
"""169 million pixels, of which Pillow only warns."""
_HEAD = "52494646 1a000000 57454250"
HUGE = {
    "VP8L": bytes.fromhex(f"{_HEAD} 5650384c 0e000000 2fc7f2b10c 000000000000000000"),
    "VP8": bytes.fromhex(f"{_HEAD} 56503820 0e000000 10000f 9d012a c832 c832 00000000"),
    "GIF": bytes.fromhex("474946383961 c832c832 000000 2c 00000000 c832c832 00 02 00 3b"),
    "PNG": b"\x89PNG\r\n\x1a\n"
    + png_chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 1, 0, 0, 0, 0))
    + png_chunk(b"IDAT", zlib.compress(bytes((SIDE // 8 + 1) * SIDE)))
    + png_chunk(b"IEND", b""),
    "TIFF": encode(Image.new("1", (SIDE, SIDE)), "tiff", compression="group4"),
}
HUGE["ICO"] = struct.pack("<3H4B2H2I", 0, 1, 1, 0, 0, 0, 0, 1, 1, len(HUGE["PNG"]), 22) + HUGE["PNG"]
DECODING = """
import sys
from pathlib import Path
from prolip.data import DataError
from prolip.build.images import read_image
from prolip.pixels import Preprocess

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024

file, square, before = Path(sys.argv[1]), Preprocess(size=24), peak()
native = Preprocess(resize="native", patch_size=8, image_seq_len=9)
for open_it in (square.decode, native.decode, lambda file: read_image(file, None)):
    try:
        open_it(file)
        print("decoded")
    except (DataError, ValueError, OSError):
        pass
print(peak() - before)
"""


@pytest.mark.parametrize("kind", HUGE)
def test_nobody_decodes_an_image_over_the_limit(kind, tmp_path):
    """Memory is measured: decoded, an image of this size takes 170 MB or more."""
    file = tmp_path / f"a.{kind.lower()}"
    file.write_bytes(HUGE[kind])
    ran = forked.run([sys.executable, "-c", DECODING, str(file)], cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) < 60


def test_an_opened_image_over_the_limit_is_refused():
    with pytest.raises(DataError, match="13000 x 13000 pixels"):
        PREPROCESS.decode(Image.new("1", (SIDE, SIDE)), "the image")


def test_people_see_what_the_model_sees():
    image = noise(3, (80, 20))
    image.getexif()[ExifTags.Base.Orientation] = 6
    turned = encode(image, "jpeg", exif=image.getexif())
    assert PREPROCESS.thumbnail(turned, 40).shape == (40, 40, 3)
    native = Preprocess(resize="native", patch_size=8, image_seq_len=9)
    assert native.thumbnail(turned, 40).shape == (80, 20, 3)
    assert native(turned).shape == (3, 32, 8)


@pytest.mark.parametrize(
    ("given", "kind", "named"),
    [
        ("absent.jpg", UserError, "absent.jpg"),
        ("notes.txt", DataError, "notes.txt"),
        ("cut.png", DataError, "cut.png"),
        ("folder", UserError, "folder"),
        (b"no image", DataError, "the image"),
        (np.zeros((4, 4, 3)), UserError, "the image"),
        (np.zeros((0, 4, 3), dtype=np.uint8), UserError, "the image"),
        (Image.new("RGB", (0, 4)), UserError, "the image"),
        (np.zeros((3, 4, 4), dtype=np.uint8), UserError, "the image"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), UserError, "the image"),
        (torch.zeros(3, 4, 4), UserError, "the image"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_input_that_is_no_image_is_named(given, kind, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "cut.png").write_bytes(encode(noise(5), "png")[:300])
    (tmp_path / "folder").mkdir()
    with pytest.raises(kind, match=f"^{named}"):
        PREPROCESS(given)
