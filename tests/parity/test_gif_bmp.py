"""GIF and BMP: valid files give PIL's pixels; damaged files raise an error or give pixels."""

from __future__ import annotations

import contextlib
import itertools
import random
import struct

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from tests.parity.test_pixels import by_pil, encode, scene, with_alpha

from prolip.data import DataError, decode

Pixels = npt.NDArray[np.uint8]

REFUSALS = (
    Image.DecompressionBombError,
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    TypeError,
    OverflowError,
    struct.error,
)
"""What PIL raises on damaged files."""
SIZES = [(64, 48), (37, 51), (1, 1), (17, 1), (1, 9), (5, 7), (120, 83)]
RAMP = bytes(level for index in range(256) for level in (index, index, index))
WORD_MASKS = [(0xF800, 0x7E0, 0x1F, 0x0), (0x7C00, 0x3E0, 0x1F, 0x0)]
PIXEL_MASKS = [
    (0xFF0000, 0xFF00, 0xFF, 0x0),
    (0xFF000000, 0xFF0000, 0xFF00, 0x0),
    (0xFF000000, 0xFF00, 0xFF, 0x0),
    (0xFF000000, 0xFF0000, 0xFF00, 0xFF),
    (0xFF, 0xFF00, 0xFF0000, 0xFF000000),
    (0xFF0000, 0xFF00, 0xFF, 0xFF000000),
    (0xFF000000, 0xFF00, 0xFF, 0xFF0000),
]


def as_pil(data: bytes) -> Pixels | None:
    """PIL's pixels, `None` where it raises whatever."""
    try:
        return by_pil(data)
    except REFUSALS:
        return None


def check(name: str, data: bytes) -> bool:
    """Ours are Pillow's pixels. A file that Pillow refuses may be read or refused. Whether Pillow reads it."""
    expected = as_pil(data)
    if expected is None:  # such as 4 bits with a ramp of greys
        with contextlib.suppress(DataError):
            decode(data)
        return False
    pixels = decode(data)
    assert pixels.shape == expected.shape, name
    assert np.array_equal(pixels, expected), name
    return True


def codes_of(indices: bytes, bits: int) -> bytes:
    """The indices as codes that never grow: the table is emptied before it does."""
    clear, written, bit, size = 1 << bits, 0, 0, bits + 1
    for place, index in enumerate(indices):
        for code in [clear, index] if place % (clear - 2) == 0 else [index]:
            written |= code << bit
            bit += size
    written |= (clear + 1) << bit
    data = written.to_bytes((bit + size + 7) // 8, "little")
    blocks = (data[at : at + 255] for at in range(0, len(data), 255))
    return b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"


def raw_gif(
    screen: tuple[int, int],
    frame: tuple[int, int, int, int],
    *,
    shared: bytes = b"",
    own: bytes = b"",
    transparent: int | None = None,
    interlaced: bool = False,
) -> bytes:
    """A frame of random indices of 4 bits, at a place of its own on the screen."""

    def flags(palette: bytes) -> int:
        return 0x80 | (len(palette) // 3).bit_length() - 2 if palette else 0

    data = b"GIF89a" + struct.pack("<HHBBB", *screen, flags(shared), 0, 0) + shared
    data += b"!\xfe\x05hello\0!\xff\x03abc\x02de\0"
    if transparent is not None:
        data += b"!\xf9\x04" + bytes([1, 0, 0, transparent]) + b"\0"
    data += b"," + struct.pack("<HHHHB", *frame, flags(own) | 0x40 * interlaced) + own + b"\x04"
    indices = np.random.default_rng(list(frame)).integers(0, 16, frame[2] * frame[3], dtype=np.uint8)
    return data + codes_of(indices.tobytes(), 4) + b";"


def gifs() -> dict[str, bytes]:
    files = {}
    for width, height in SIZES:
        image, size = scene(width, height), f"{width}x{height}"
        for colours in (2, 5, 256):
            for interlace in (0, 1):
                data = encode(image.quantize(colours), "GIF", interlace=interlace)
                files[f"{size} {colours} colours interlaced={interlace}"] = data
        files[f"{size} grey"] = encode(image.convert("L"), "GIF")
        files[f"{size} transparent"] = encode(with_alpha(image), "GIF")
        others = [scene(width, height, seed) for seed in (5, 6)]
        files[f"{size} animation"] = encode(image, "GIF", save_all=True, append_images=others, loop=0)
        files[f"{size} bytes behind the end"] = encode(image, "GIF") + bytes(range(256))
    colours = np.random.default_rng(3).bytes(48)
    palettes = [b"", colours, RAMP[:48]]
    frames = [(0, 0, 9, 7), (2, 1, 5, 3), (4, 4, 9, 7), (0, 0, 0, 7), (1, 0, 3, 0), (0, 9, 9, 1)]
    for frame, shared, own in itertools.product(frames, palettes, palettes):
        if not shared and not own:
            continue
        for transparent, interlaced in itertools.product((None, 3), (False, True)):
            name = f"{frame} {len(shared)} {shared[:6]!r} {len(own)} {own[:6]!r} {transparent} {interlaced}"
            data = raw_gif((9, 7), frame, shared=shared, own=own, transparent=transparent, interlaced=interlaced)
            files[name] = data
    files["a screen without pixels"] = raw_gif((0, 0), (0, 0, 9, 7), shared=colours)
    return files


def raw_bmp(
    size: tuple[int, int],
    header_size: int,
    bits: int,
    compression: int,
    *,
    colors: int = 0,
    palette: bytes = b"",
    masks: tuple[int, ...] = (),
    samples: bytes,
) -> bytes:
    """A bitmap of any kind that the format has, and some that it has not."""
    width, height = size
    if header_size == 12:
        info = struct.pack("<IHHHH", 12, width, abs(height), 1, bits)
    else:
        info = struct.pack("<IIiHHIIIIII", header_size, width, height, 1, bits, compression, 0, 2835, 2835, colors, 0)
        if compression == 3:
            info += struct.pack("<IIII"[: len(masks) + 1], *masks)
        room = header_size - len(info)
        info = info + bytes(room) if room > 0 else info if header_size == 40 else info[:header_size]
    if compression == 3 and header_size == 40:
        info = info[: 40 + 12]
    start = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, start) + info + palette + samples


def bmps() -> dict[str, bytes]:
    files = {}
    for width, height in SIZES:
        image, size = scene(width, height), f"{width}x{height}"
        for mode in ("1", "L", "P", "RGB"):
            files[f"{size} {mode}"] = encode(image.convert(mode), "BMP")
        files[f"{size} RGBA"] = encode(with_alpha(image), "BMP")
        files[f"{size} 5 colours"] = encode(image.quantize(5), "BMP")
    generator = np.random.default_rng(4)
    for header_size, bits, up in itertools.product((12, 40, 52, 56, 64, 108, 124), (1, 4, 8, 16, 24, 32), (1, -1)):
        if header_size == 12 and (bits in {16, 32} or up < 0):
            continue  # OS/2 1.x has neither
        samples, kind = generator.bytes(4 * 13 * 11), f"header {header_size} bits {bits} {up}"
        if bits > 8:
            files[kind] = raw_bmp((13, 11 * up), header_size, bits, 0, samples=samples)
        entry = 3 if header_size == 12 else 4
        for colors, gray in itertools.product({0, 1 << bits} if bits <= 8 else set(), (True, False)):
            count = 1 << bits
            ramp = b"".join(
                bytes([255 * index if count == 2 else index] * 3 + [0] * (entry - 3)) for index in range(count)
            )
            options = {"colors": colors, "palette": ramp if gray else generator.bytes(entry * count)}
            files[f"{kind} colors {colors} {gray}"] = raw_bmp(
                (13, 11 * up), header_size, bits, 0, samples=samples, **options
            )
        if bits in {4, 8}:
            few = bytes(index % 3 if bits == 8 else 16 * (index % 3) + index % 2 for index in range(4 * 13 * 11))
            palette = generator.bytes(4 * 3)
            if header_size > 12:
                files[f"{kind} 3 colours"] = raw_bmp(
                    (13, 11 * up), header_size, bits, 0, colors=3, palette=palette, samples=few
                )
        for masks in {16: WORD_MASKS, 32: PIXEL_MASKS}.get(bits, []) if header_size not in {12, 64} else []:
            files[f"{kind} masks {masks}"] = raw_bmp((13, 11 * up), header_size, bits, 3, masks=masks, samples=samples)
    return files


def runs(generator: random.Random, width: int, height: int, *, halves: bool) -> bytes:
    """Runs, literals and skipped pixels at random, each row whole."""
    data = b""
    for _ in range(height):
        left = width
        while left:
            count = generator.randint(1, min(left, 255))
            match generator.randrange(6):
                case 0 if left > 1:
                    count = min(count, left - 1)
                    data += bytes([0, 2, count, 0])
                case 1 | 2 if count >= 3:
                    length = (count + 1) // 2 if halves else count
                    data += bytes([0, count]) + generator.randbytes(length) + bytes(length % 2)
                case _:
                    data += bytes([count]) + generator.randbytes(1)
            left -= count
        data += b"\0\0"
    return data + b"\0\1"


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize(("files", "least"), [(gifs, 190), (bmps, 200)], ids=["gif", "bmp"])
def test_gif_and_bmp_pixels_equal_pils(files, least: int) -> None:
    decoded = sum(check(name, data) for name, data in files().items())
    assert decoded > least, "most of the files are sound"


def test_run_length_encoded_bmp_pixels_equal_pils() -> None:
    generator = random.Random(0)
    for case in range(300):
        width, height, halves = generator.randint(1, 300), generator.randint(1, 9), case % 2 == 0
        colors = 16 if halves else 256
        # What is skipped has colour 0 in Pillow and is black here: no rule says what it should be.
        palette = bytes(4) + generator.randbytes(4 * (colors - 1))
        samples = runs(generator, width, height, halves=halves)
        options = {"colors": colors if case % 3 else 0, "palette": palette, "samples": samples}
        data = raw_bmp((width, height), 40, 4 if halves else 8, 2 if halves else 1, **options)
        assert check(f"case {case}", data)


@pytest.mark.parametrize("files", [gifs, bmps], ids=["gif", "bmp"])
def test_truncated_gif_and_bmp_files_raise_a_data_error(files) -> None:
    for name, data in itertools.islice(files().items(), 0, None, 7):
        if as_pil(data) is None:
            continue
        # Files of `raw_bmp` have more samples than they need, an animation has its first frame in its first half.
        half = [] if name.startswith("header") or "animation" in name or "bytes behind" in name else [len(data) // 2]
        for left in (2, 13, *half):
            with pytest.raises(DataError):
                decode(data[:left])
