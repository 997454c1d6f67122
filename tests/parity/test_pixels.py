"""Pixels equal PIL's: decoding, resizing, the evaluation transform and the colour operations, to the last bit."""

import io
import random
import runpy
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL
import pytest
from PIL import Image
from tests.support.images import encode, png_chunk
from torchvision.transforms import InterpolationMode, functional as F

from prolip import _core
from prolip._core import testing
from prolip.data import DataError, decode

pytestmark = pytest.mark.usefixtures("simd_level_asked_for")

Pixels = npt.NDArray[np.uint8]

PIL_VERSION = int(PIL.__version__.split(".", maxsplit=1)[0])
SIZES = [(64, 48), (37, 51), (1, 1), (17, 1), (1, 9), (8, 8), (120, 83)]
# Of as many blocks as what PIL writes: 4:4:0 and 4:1:1, and some that hardly anybody has seen.
SAMPLINGS = {
    "4:2:2": ["12 11 11", "11 11 21", "11 12 11"],
    "4:2:0": ["41 11 11", "14 11 11", "11 11 22", "21 21 21", "12 12 12", "11 22 11"],
}
OPERATIONS = [F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue]


def scene(width, height, seed=0):
    """An image with smooth parts, edges and some noise."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    channels = [
        128 + 100 * np.sin((x * (i + 1) + y * (3 - i)) / 11) + 60 * ((x // 7 + y // 5 + i) % 2) for i in range(3)
    ]
    noisy = np.stack(channels, axis=-1) + generator.normal(0, 12, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def by_pil(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def with_alpha(image, seed=1):
    alpha = np.random.default_rng(seed).integers(0, 256, (image.height, image.width), dtype=np.uint8)
    alpha[: image.height // 3] = 0
    image = image.copy()
    image.putalpha(Image.fromarray(alpha))
    return image


def jpegs():
    files = {}
    for width, height in SIZES:
        image, size = scene(width, height), f"{width}x{height}"
        for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
            for progressive in (False, True):
                options = {"quality": 75, "subsampling": subsampling, "progressive": progressive}
                files[f"{size} {subsampling} progressive={progressive}"] = encode(image, "JPEG", **options)
        for mode in ("L", "CMYK"):
            for progressive in (False, True):
                data = encode(image.convert(mode), "JPEG", quality=85, progressive=progressive)
                files[f"{size} {mode} progressive={progressive}"] = data
        files[f"{size} YCCK"] = as_ycck(encode(image.convert("CMYK"), "JPEG", quality=85))
        files[f"{size} stored as RGB"] = encode(image, "JPEG", quality=90, keep_rgb=True)
        files[f"{size} restarts by blocks"] = encode(image, "JPEG", quality=90, restart_marker_blocks=2)
        files[f"{size} restarts by rows"] = encode(image, "JPEG", progressive=True, restart_marker_rows=1)
        files[f"{size} optimised"] = encode(image, "JPEG", quality=40, optimize=True)
        for subsampling, factors in SAMPLINGS.items():
            data = encode(image, "JPEG", subsampling=subsampling)
            for three in factors:
                for cut in (0, 3):
                    files[f"{size} sampled {three} less {cut}"] = with_sampling(data, three, cut)
        for turn in range(1, 9):
            # PIL leaves it to the caller to turn the image.
            exif = Image.Exif()
            exif[0x0112] = turn
            files[f"{size} turned {turn}"] = encode(image, "JPEG", exif=exif)
        files[f"{size} bytes behind the end"] = encode(image, "JPEG") + b"\xff\xd8\xff" + bytes(range(256))
    return files


def with_sampling(data, factors, cut):
    """The same blocks as an image whose components are sampled as PIL does not write it, columns and rows of each."""
    at = data.index(b"\xff\xc0") + 5
    height, width = struct.unpack(">HH", data[at : at + 4])
    luma = data[at + 6]
    columns, rows = -(-width // (8 * (luma >> 4))), -(-height // (8 * (luma & 15)))
    numbers = [int(pair[0]) << 4 | int(pair[1]) for pair in factors.split()]
    size = (rows * 8 * max(n & 15 for n in numbers) - cut, columns * 8 * max(n >> 4 for n in numbers) - cut)
    changed = bytearray(data)
    changed[at : at + 4] = struct.pack(">HH", *size)
    changed[at + 6 : at + 15 : 3] = bytes(numbers)
    return bytes(changed)


def as_ycck(cmyk):
    """The same samples declared as YCCK by the colour transform in the Adobe marker."""
    at = cmyk.index(b"Adobe")
    return cmyk[: at + 11] + b"\x02" + cmyk[at + 12 :]


def webps():
    files = {}
    for width, height in SIZES:
        image, size = scene(width, height), f"{width}x{height}"
        for quality in (10, 80):
            files[f"{size} quality {quality}"] = encode(image, "WEBP", quality=quality)
        files[f"{size} lossless"] = encode(image, "WEBP", lossless=True)
        files[f"{size} alpha"] = encode(with_alpha(image), "WEBP", quality=70)
        files[f"{size} lossless alpha"] = encode(with_alpha(image), "WEBP", lossless=True, exact=True)
        others = [scene(width, height, seed) for seed in (5, 6)]
        for kind, first in (("", image), (" with alpha", with_alpha(image))):
            data = encode(first, "WEBP", quality=70, save_all=True, append_images=others)
            files[f"{size} animation{kind}"] = data
    return files


def raw_png(width, height, depth, color, *, interlaced, palette, transparent=b""):
    """A PNG of random samples, of any kind that the format has."""
    generator = np.random.default_rng([width, height, depth, color])
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]

    def rows(columns, lines):
        row = (columns * channels * depth + 7) // 8
        return b"".join(b"\0" + generator.bytes(row) for _ in range(lines)) if columns else b""

    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    samples = rows(width, height)
    if interlaced:
        samples = b"".join(rows(-((x - width) // dx), -((y - height) // dy)) for x, y, dx, dy in passes)
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, int(interlaced))
    colours = png_chunk(b"PLTE", generator.bytes(3 * min(palette, 1 << depth))) if color == 3 else b""
    colours += png_chunk(b"tRNS", transparent) if transparent else b""
    data = png_chunk(b"IDAT", zlib.compress(samples)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + colours + data


def pngs():
    files = {}
    kinds = [(depth, 0) for depth in (1, 2, 4, 8, 16)] + [(depth, 3) for depth in (1, 2, 4, 8)]
    kinds += [(depth, color) for depth in (8, 16) for color in (2, 4, 6)]
    for width, height in SIZES:
        image, size = scene(width, height), f"{width}x{height}"
        for depth, color in kinds:
            for interlaced in (False, True):
                # With 3 colours some samples name none.
                for palette in (256, 3) if color == 3 else (0,):
                    name = f"{size} depth {depth} type {color} interlaced={interlaced} palette {palette}"
                    files[name] = raw_png(width, height, depth, color, interlaced=interlaced, palette=palette)
        for depth, color in ((1, 0), (8, 0), (16, 0), (8, 2), (16, 2), (4, 3), (8, 3)):
            transparent = bytes(range(9)) if color == 3 else bytes([0, 1]) * (3 if color == 2 else 1)
            data = raw_png(width, height, depth, color, interlaced=False, palette=256, transparent=transparent)
            files[f"{size} depth {depth} type {color} with tRNS"] = data
        dark = np.random.default_rng(0).integers(0, 400, (height, width)).astype(np.uint16)
        files[f"{size} dark 16-bit grey"] = encode(Image.fromarray(dark), "PNG")
        files[f"{size} transparent colour"] = encode(image, "PNG", transparency=(1, 2, 3))
        files[f"{size} transparent palette"] = encode(image.quantize(16), "PNG", transparency=1)
        files[f"{size} animation"] = encode(image, "PNG", save_all=True, append_images=[scene(width, height, 7)])
        files[f"{size} ends after the samples"] = encode(image, "PNG")[:-12]
    return files


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("files", [jpegs, pngs, webps])
def test_decoded_pixels_equal_pils(files):
    for name, data in files().items():
        expected = by_pil(data)
        pixels = decode(data)
        assert pixels.shape == expected.shape, name
        assert np.array_equal(pixels, expected), name


@pytest.mark.parametrize("cut", [1, 2, 3, 20, 400])
@pytest.mark.parametrize(
    ("file_format", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {"quality": 80}), ("PNG", {})],
    ids=["jpeg", "progressive", "webp", "png"],
)
def test_a_truncated_file_raises_exactly_where_pil_raises(file_format, options, cut):
    data = encode(scene(200, 133), file_format, **options)[:-cut]
    try:
        expected = by_pil(data)
    except OSError:
        with pytest.raises(DataError):
            decode(data)
    else:
        assert np.array_equal(decode(data), expected)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", b"not an image", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBPVP8 "])
def test_bytes_that_are_no_image_raise_a_data_error(data):
    with pytest.raises(DataError):
        decode(data)


def resized_by_pil(image, box, size):
    x, y, width, height = box
    crop = Image.fromarray(image).crop((x, y, x + width, y + height))
    return np.asarray(crop.resize(size, Image.Resampling.BICUBIC))


def resized_along_columns_first(box, size):
    """Whether Pillow 13 makes its two passes in the other order, which earlier versions never did."""
    return max(0, box[3] - size[1]) > 2 * max(0, box[2] - size[0])


def random_box(generator, width, height, least):
    box_width = generator.randint(max(1, int(width * least)), width)
    box_height = generator.randint(max(1, int(height * least)), height)
    return generator.randint(0, width - box_width), generator.randint(0, height - box_height), box_width, box_height


def check_resizing(image, generator, least):
    box = random_box(generator, image.shape[1], image.shape[0], least)
    size = generator.choice([(224, 224), (generator.randint(1, 300), generator.randint(1, 300))])
    if PIL_VERSION < 13 and resized_along_columns_first(box, size):
        return
    pixels = testing.resize_box(image, box, *size)
    assert np.array_equal(pixels, resized_by_pil(image, box, size)), (image.shape, box, size)


def test_resized_pixels_equal_pils():
    generator = random.Random(0)
    extremes = np.random.default_rng(0).integers(0, 2, (90, 110, 3), dtype=np.uint8) * 255
    for image in [np.asarray(scene(300, 220)), extremes, np.asarray(scene(30, 400)), np.asarray(scene(900, 20))]:
        for _ in range(40):
            check_resizing(image, generator, least=0.02)


@pytest.mark.skipif(PIL_VERSION < 13, reason="it resizes the rows of tall images first")
def test_the_conformance_corpus_is_the_installed_pillows():
    script = runpy.run_path(str(Path(__file__).parents[2] / "rust/image/tests/conformance.py"))
    table = script["TABLE"].read_text(encoding="utf-8")
    rows = [[line for line in text.splitlines() if line[0] != "#"] for text in (table, script["written_anew"](table))]
    assert rows[0] == rows[1]


def evaluated_by_pil(data, size):
    image = Image.fromarray(by_pil(data))
    return np.asarray(F.center_crop(F.resize(image, size, InterpolationMode.BICUBIC), size))


@pytest.mark.parametrize("size", [32, 40, 97])
def test_evaluation_pixels_equal_torchvisions(size):
    for width, height in [(64, 48), (37, 51), (33, 32), (32, 32), (121, 83), (40, 171), (300, 41), (5, 7)]:
        if PIL_VERSION < 13 and height > 2 * width:
            continue
        data = encode(scene(width, height), "PNG")
        assert np.array_equal(_core.preprocess_image(data, size), evaluated_by_pil(data, size)), (width, height)


def jittered_by_torchvision(image, factors, order):
    result = Image.fromarray(image)
    for step in order:
        factor = factors[step]
        if factor is not None:
            result = OPERATIONS[step](result, factor)
    return np.asarray(result)


def random_jitter(generator):
    """Factors as torchvision draws them, in single precision."""
    factors = [float(np.float32(generator.uniform(0.5, 1.5))) for _ in range(3)]
    factors.append(float(np.float32(generator.uniform(-0.5, 0.5))))
    factors = [factor if generator.random() < 0.8 else None for factor in factors]
    return factors, generator.sample(range(4), 4)


def all_colours(step):
    levels = np.arange(0, 256, step, dtype=np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1)
    return cube.reshape(-1, len(levels), 3)


def test_colour_jittered_pixels_equal_torchvisions():
    generator = random.Random(0)
    images = [np.asarray(scene(61, 47)), np.asarray(scene(5, 1)), all_colours(15)]
    for case in range(60):
        image = images[case % len(images)]
        factors, order = random_jitter(generator)
        expected = jittered_by_torchvision(image, factors, order)
        assert np.array_equal(testing.colour_jitter(image, *factors, order), expected), (factors, order)


@pytest.mark.parametrize("hue", [-0.5, -0.08, -0.001, 0.0, 0.0039, 0.08, 0.31, 0.5])
def test_hue_equals_torchvision_on_many_colours(hue):
    image = all_colours(3)
    hue = float(np.float32(hue))
    expected = jittered_by_torchvision(image, [None, None, None, hue], [3])
    assert np.array_equal(testing.colour_jitter(image, None, None, None, hue, [0, 1, 2, 3]), expected)


def test_gray_pixels_equal_pils():
    image = all_colours(5)
    expected = np.asarray(Image.fromarray(image).convert("L").convert("RGB"))
    assert np.array_equal(testing.gray(image), expected)


def test_photographs_decode_and_resize_to_pillows_pixels(photos):
    generator = random.Random(1)
    for photo in photos:
        data = photo.read_bytes()
        image = decode(data)
        assert np.array_equal(image, by_pil(data)), photo.name
        check_resizing(image, generator, least=0.5)
        if PIL_VERSION >= 13 or image.shape[0] <= 2 * image.shape[1]:
            assert np.array_equal(_core.preprocess_image(data, 224), evaluated_by_pil(data, 224)), photo.name
