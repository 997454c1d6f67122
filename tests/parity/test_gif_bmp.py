"""GIF and BMP: the first frame's pixels equal PIL's, and what PIL refuses is refused, on whole and on damaged files."""

from __future__ import annotations

import io
import itertools
import random
import struct
import warnings

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from tests.parity.test_pixels import by_pil, encode, scene, with_alpha

from prolip import _core
from prolip._core import testing

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
MASKS = [
    (0xFF0000, 0xFF00, 0xFF, 0x0),
    (0xFF000000, 0xFF0000, 0xFF00, 0x0),
    (0xFF000000, 0xFF00, 0xFF, 0x0),
    (0xFF000000, 0xFF0000, 0xFF00, 0xFF),
    (0xFF, 0xFF00, 0xFF0000, 0xFF000000),
    (0xFF0000, 0xFF00, 0xFF, 0xFF000000),
    (0xFF000000, 0xFF00, 0xFF, 0xFF0000),
    (0x0, 0x0, 0x0, 0x0),
    (0xFF, 0xFF00, 0xFF0000, 0x0),
    (0xF800, 0x7E0, 0x1F, 0x0),
    (0x7C00, 0x3E0, 0x1F, 0x0),
]


def as_pil(data: bytes) -> Pixels | None:
    """PIL's pixels, `None` where it raises whatever."""
    try:
        return by_pil(data)
    except REFUSALS:
        return None


def check(name: str, data: bytes) -> bool:
    """Both give the same pixels, or neither gives any. Whether there are pixels."""
    expected = as_pil(data)
    if expected is None:
        with pytest.raises(_core.DataError):
            testing.decode_image(data)
        return False
    pixels = testing.decode_image(data)
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
    palettes = [b"", colours, colours[:24], RAMP[:48], RAMP[:24]]
    frames = [(0, 0, 9, 7), (2, 1, 5, 3), (4, 4, 9, 7), (0, 0, 0, 7), (1, 0, 3, 0), (0, 9, 9, 1)]
    for frame, shared, own in itertools.product(frames, palettes, palettes):
        for transparent, interlaced in itertools.product((None, 3, 200), (False, True)):
            name = f"{frame} {len(shared)} {shared[:6]!r} {len(own)} {own[:6]!r} {transparent} {interlaced}"
            data = raw_gif((9, 7), frame, shared=shared, own=own, transparent=transparent, interlaced=interlaced)
            files[name] = data
    files["a screen without pixels"] = raw_gif((0, 0), (0, 0, 9, 7))
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
    offset: int | None = None,
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
    start = 14 + len(info) + len(palette) if offset is None else offset
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
    for header_size, bits, up in itertools.product(
        (12, 40, 52, 56, 64, 108, 124, 16), (1, 4, 8, 16, 24, 32, 2), (1, -1)
    ):
        samples, kind = generator.bytes(4 * 13 * 11), f"header {header_size} bits {bits} {up}"
        for colors, gray, offset in itertools.product((0, 1, 2, 3, 16, 256, 300), (True, False), (None, 0)):
            entry, count = 3 if header_size == 12 else 4, colors or 1 << min(bits, 8)
            ramp = b"".join(
                bytes([255 * index if count == 2 else index % 256] * 3 + [0] * (entry - 3)) for index in range(count)
            )
            palette = (ramp if gray else generator.bytes(entry * count)) if bits <= 8 else b""
            options = {"colors": colors, "palette": palette, "samples": samples, "offset": offset}
            name = f"{kind} colors {colors} {gray} {offset}"
            files[name] = raw_bmp((13, 11 * up), header_size, bits, 0, **options)
        for masks in MASKS:
            data = raw_bmp((13, 11 * up), header_size, bits, 3, masks=masks, samples=samples)
            files[f"{kind} masks {masks}"] = data
    return files


def runs(generator: random.Random, width: int, height: int, *, halves: bool) -> bytes:
    """Runs, literals, line ends and steps at random, mostly of a whole picture."""
    data, filled = b"", 0
    while filled < width * height and generator.random() < 0.995:
        match generator.randrange(8):
            case 0:
                data += b"\0\0"
                filled += -filled % width
            case 1 if generator.random() < 0.3:
                data += bytes([0, 2, generator.randrange(4), generator.randrange(2)])
            case 2 | 3:
                count = generator.randint(3, 12)
                length = (count + 1) // 2 if halves else count
                data += bytes([0, count]) + generator.randbytes(length + length % 2)
                filled += count
            case _:
                count = generator.randint(1, 2 * width)
                data += bytes([min(count, 255)]) + generator.randbytes(1)
                filled += min(count, width - filled % width)
    return data + (b"\0\1" if generator.random() < 0.5 else b"\0\0" * height + b"\0\1")


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize(("files", "least"), [(gifs, 500), (bmps, 700)], ids=["gif", "bmp"])
def test_decoding_equals_pil(files, least: int) -> None:
    decoded = sum(check(name, data) for name, data in files().items())
    assert decoded > least, "most of the files are sound"


def test_run_lengths_equal_pil() -> None:
    generator = random.Random(0)
    decoded = 0
    for case in range(600):
        width, height, halves = generator.randint(1, 30), generator.randint(1, 9), case % 2 == 0
        colors = generator.choice([2, 16, 200, 256])
        palette = generator.randbytes(4 * colors)
        if case % 5 == 0:
            palette = b"".join(bytes([index, index, index, 0]) for index in range(colors))
        samples = runs(generator, width, height, halves=halves)
        size = (width, height if case % 3 else -height)
        options = {"colors": colors, "palette": palette, "samples": samples}
        data = raw_bmp(size, 40, generator.choice([4, 8, 24]), 2 if halves else 1, **options)
        decoded += check(f"case {case}", data)
    assert decoded > 100


@pytest.mark.parametrize("files", [gifs, bmps], ids=["gif", "bmp"])
def test_damaged_files_fail_where_pil_raises(files) -> None:
    generator = random.Random(1)
    sound = [data for data in files().values() if len(data) < 4000]
    same = 0
    for _ in range(3000):
        data = bytearray(generator.choice(sound))
        for _ in range(generator.randint(1, 3)):
            data[generator.randrange(6 if data[:3] == b"GIF" else 2, min(len(data), 200))] = generator.randrange(256)
        if generator.random() < 0.3:
            del data[generator.randrange(len(data)) :]
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            if _is_large(bytes(data)):
                continue
            same += check(data.hex(), bytes(data))
    assert same > 200


def _is_large(data: bytes) -> bool:
    """Whether it announces so many pixels that PIL would be slow, or stop by its own limit."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.width * image.height > 1 << 20
    except REFUSALS:
        return False
