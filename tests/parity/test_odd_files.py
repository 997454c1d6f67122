"""Unusual and damaged JPEG, PNG and WebP files: PIL's pixels, or an error where PIL has one."""

import contextlib
import io
import logging
import random
import struct
import warnings
import zlib
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from tests.parity.test_pixels import by_pil, encode, jpegs, pngs, raw_png, scene, webps, with_sampling

from prolip.data import DataError, decode

pytestmark = pytest.mark.usefixtures("simd_level_asked_for")

IMAGE = scene(37, 51)
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


def as_pil(data):
    """PIL's pixels; `None` for a file that it refuses."""
    try:
        return by_pil(data)
    except REFUSALS:
        return None


def check(name, data):
    """Ours are Pillow's pixels. A file that Pillow refuses may be read or refused. Whether Pillow reads it."""
    expected = as_pil(data)
    if expected is None:
        with contextlib.suppress(DataError):
            decode(data)
        return False
    pixels = decode(data)
    assert pixels.shape == expected.shape, name
    assert np.array_equal(pixels, expected), name
    return True


def segment(marker, content):
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def without(data, marker):
    """A JPEG without its first segment of a kind."""
    at = data.index(bytes([0xFF, marker]))
    return data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]


def with_names(data, names):
    """A JPEG whose three components are called by other numbers."""
    frame, scan, changed = data.index(b"\xff\xc0"), data.index(b"\xff\xda"), bytearray(data)
    changed[frame + 10 : frame + 19 : 3] = names
    changed[scan + 5 : scan + 11 : 2] = names
    return bytes(changed)


def odd_jpegs():
    """What tells the colours of three components (names, JFIF, Adobe), other processes, what stands between."""
    plain = encode(IMAGE, "JPEG")
    for names in (b"RGB", b"rgb", b"\0\1\2", b"\1\x22\x23"):
        named = with_names(plain, names)
        for jfif, data in ((True, named), (False, without(named, 0xE0))):
            yield f"components {names!r}, JFIF {jfif}", data
            for transform in range(4):
                adobe = segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))
                yield f"components {names!r}, JFIF {jfif}, Adobe {transform}", data[:2] + adobe + data[2:]
    inks = encode(IMAGE.convert("CMYK"), "JPEG")
    yield "CMYK without Adobe's marker", without(inks, 0xEE)
    at = inks.index(b"Adobe")
    for transform in range(4):
        yield f"CMYK, Adobe {transform}", inks[: at + 11] + bytes([transform]) + inks[at + 12 :]
    gray = encode(IMAGE.convert("L"), "JPEG")
    at = gray.index(b"\xff\xc0")
    yield "grey with the sampling of luma", gray[: at + 11] + b"\x22" + gray[at + 12 :]
    at = plain.index(b"\xff\xc0")
    for process in (1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15):
        # Extended sequential, progressive, lossless, hierarchical, and all of them in arithmetic coding.
        yield f"process {process}", plain[: at + 1] + bytes([0xC0 + process]) + plain[at + 2 :]
    for bits in (1, 7, 12, 16):
        yield f"{bits} bits", plain[: at + 4] + bytes([bits]) + plain[at + 5 :]
    yield "no height", plain[: at + 5] + b"\0\0" + plain[at + 7 :]
    yield (
        "height behind the scan",
        plain[: at + 5] + b"\0\0" + plain[at + 7 : -2] + segment(0xDC, b"\0\x33") + b"\xff\xd9",
    )
    yield "sampled in thirds", with_sampling(encode(IMAGE, "JPEG", subsampling="4:2:0"), "31 21 11", 0)
    yield "fill bytes", plain[:2] + b"\xff\xff\xff" + plain[2:]
    yield "bytes between segments", plain[:20] + b"abc" + plain[20:]
    yield "a comment", plain[:2] + segment(0xFE, b"hello") + plain[2:]
    yield "damaged Exif", plain[:2] + segment(0xE1, b"Exif\0\0MM\0\x2a\xff\xff\xff\xff") + plain[2:]
    yield "an empty segment", plain[:2] + segment(0xE0, b"") + plain[2:]
    yield "a profile in two segments", encode(IMAGE, "JPEG", icc_profile=b"x" * 70_000)
    yield "two images", plain + plain
    yield "several images by MPO's rules", encode(IMAGE, "MPO", save_all=True, append_images=[scene(37, 51, 3)])
    yield "a byte before", b"\0" + plain


CHUNKS = {
    b"gAMA": b"\0\0\x10\0",
    b"tEXt": b"a\0b",
    b"iCCP": b"a\0\0" + zlib.compress(b"profile"),
    b"tIME": b"\x07\xc8\1\1\1\1\1",
    b"eXIf": b"MM\0\x2a\0\0\0\x08\0\0",
    b"abCd": b"hello",
}


def odd_pngs():
    """Wrong checksums, of each chunk and of the samples; more samples than pixels; chunks before and behind them."""

    def chunk(name, content, checksum=b""):
        checksum = checksum or struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    for (width, height), interlaced in (((200, 133), False), ((9, 7), False), ((9, 7), True)):
        kind = f"{width}x{height} interlaced={interlaced}"
        whole = raw_png(width, height, 8, 2, interlaced=interlaced, palette=0)
        start, head, end = whole[:8], whole[8:33], whole[-12:]
        samples = whole[33 + 8 : -12 - 4]
        data = chunk(b"IDAT", samples)
        yield f"{kind} whole", start + head + data + end
        yield f"{kind} header's checksum", start + head[:-4] + b"abcd" + data + end
        yield f"{kind} checksum around the samples", start + head + chunk(b"IDAT", samples, b"abcd") + end
        yield f"{kind} checksum of the samples", start + head + chunk(b"IDAT", samples[:-4] + b"abcd") + end
        yield f"{kind} no checksum of the samples", start + head + chunk(b"IDAT", samples[:-4]) + end
        yield f"{kind} checksum of the end", start + head + data + end[:-4] + b"abcd"
        more = zlib.compress(zlib.decompress(samples) + bytes(999))
        yield f"{kind} more samples", start + head + chunk(b"IDAT", more) + end
        parts = [samples[at : at + 50] for at in range(0, len(samples), 50)]
        yield f"{kind} in many chunks", start + head + b"".join(chunk(b"IDAT", part) for part in parts) + end
        for name, content in CHUNKS.items():
            for right in (True, False):
                extra = chunk(name, content, b"" if right else b"abcd")
                yield f"{kind} {name!r} {right} before", start + head + extra + data + end
                yield f"{kind} {name!r} {right} behind", start + head + data + extra + end


def odd_webps():
    """Containers that say another length than they have."""
    others = [scene(37, 51, seed) for seed in (3, 4)]
    for name, data in {
        "lossy": encode(IMAGE, "WEBP"),
        "lossless": encode(IMAGE, "WEBP", lossless=True),
        "extended": encode(IMAGE, "WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0", icc_profile=b"x" * 100),
        "animation": encode(IMAGE, "WEBP", save_all=True, append_images=others),
    }.items():
        length = len(data) - 8
        yield f"{name} whole", data
        yield f"{name} and more", data + b"abcde"
        yield f"{name} without container", data[12:]
        for claimed in (0, length - 2, length - 1, length + 2, 2 * length, 0xFFFFFFFE):
            yield f"{name} claims {claimed} of {length}", data[:4] + struct.pack("<I", claimed) + data[8:]
        for left in (12, 20, len(data) // 4, len(data) // 2, len(data) - 1):
            yield f"{name} cut to {left}", data[:left]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("files", "sound", "refused"),
    [(odd_jpegs, 50, 15), (odd_pngs, 40, 20), (odd_webps, 8, 30)],
    ids=["jpeg", "png", "webp"],
)
def test_unusual_files_decode_to_pils_pixels(files, sound, refused):
    found = Counter(check(name, data) for name, data in files())
    assert found[True] >= sound
    assert found[False] >= refused


@pytest.mark.parametrize(
    ("files", "more_refused"), [(jpegs, 0.01), (pngs, 0.2), (webps, 0.01)], ids=["jpeg", "png", "webp"]
)
def test_damaged_files_raise_where_pil_raises(files, more_refused):
    """Changed bytes and cut ends. A few more are refused than by PIL: what is wrong behind the last row of samples."""
    generator = random.Random(1)
    sound = [data for data in files().values() if len(data) < 4000]
    found = Counter()
    logging.disable()
    for _ in range(4000):
        data = bytearray(generator.choice(sound))
        for _ in range(generator.choice([1, 1, 1, 2, 3])):
            # Behind the signature, within the headers of most.
            data[generator.randrange(12, min(len(data), 700))] ^= generator.randrange(1, 256)
        if generator.random() < 0.1:
            del data[generator.randrange(len(data)) :]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not _is_large(bytes(data)):
                found[_compare(bytes(data))] += 1
    logging.disable(logging.NOTSET)
    assert found["the same"] > 200
    assert found["more refused"] <= more_refused * found.total()


def _is_large(data):
    """Whether it announces so many pixels that PIL would be slow, or stop by its own limit."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.width * image.height > 1 << 20
    except REFUSALS:
        return False


def _compare(data):
    expected = as_pil(data)
    try:
        pixels = decode(data)
    except DataError:
        return "refused" if expected is None else "more refused"
    assert expected is not None, f"PIL refuses {data.hex()}"
    assert np.array_equal(pixels, expected), data.hex()
    return "the same"
