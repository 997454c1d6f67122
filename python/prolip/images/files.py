"""Find image files in folders, and open images with Pillow: which formats, and how large."""

import io
import math
import struct
import warnings
import zlib
from collections import deque
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from prolip import _core

EXTENSIONS = {
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".jp2", ".avif", ".heic", ".heif"),
}
"""File extensions of images. What Pillow cannot read counts as a bad image."""
STORED = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}
"""Formats that the loader reads. An MPO starts with an ordinary JPEG."""
FORMATS = (*STORED, "GIF", "BMP", "TIFF", "JPEG2000", "AVIF", "HEIF", "PPM", "TGA")
"""Formats that Pillow is asked for. Others hide images of any size, as ICO does, or run programs, as EPS does."""
MAX_PIXELS: int = _core.MAX_PIXELS
"""The loader skips larger images, so they are not stored."""
MAX_BYTES = 256 << 20
"""Largest file of an image, as for the member of a shard."""
UNREADABLE = (
    *(OSError, ValueError, SyntaxError, EOFError, RuntimeError, IndexError, OverflowError, MemoryError),
    *(zlib.error, struct.error, Image.DecompressionBombError),
)
"""What Pillow raises for damaged files."""


def find_images(source: Path) -> list[Path]:
    """The image files below a folder, by extension, sorted. Hidden files and folders are skipped.

    A folder that several links lead to is searched once. A broken link is listed, so that the error of reading it names
    it.
    """
    found, known, folders = list[Path](), set[Path](), deque([source])
    while folders:
        folder = folders.popleft()
        if (real := folder.resolve()) in known:
            continue
        known.add(real)
        for path in sorted(folder.iterdir()):
            if path.name.startswith("."):
                continue
            if path.is_dir():
                # Links come last, so that a folder has its own name if it is below the source.
                folders.append(path) if path.is_symlink() else folders.appendleft(path)
            elif path.suffix.lower() in EXTENSIONS and (path.is_file() or path.is_symlink()):
                found.append(path)
    return sorted(found)


def open_image(data: bytes | Path, *, any_size: bool = False) -> Image.Image:
    """Open an image of at most `MAX_PIXELS`, or of any size that Pillow takes. Nothing is decoded yet.

    Devices and pipes never end, and numbers written as text (plain PPM) take Pillow minutes.
    """
    if isinstance(data, Path) and data.exists() and (not data.is_file() or data.stat().st_size > MAX_BYTES):
        raise ValueError("must be a regular file of at most 256 MiB")
    try:
        with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
            Image.init()
            known = [kind for kind in FORMATS if kind in Image.OPEN]
            image = Image.open(io.BytesIO(data) if isinstance(data, bytes) else data, formats=known)
    except UnidentifiedImageError:  # its message has the address of the bytes
        raise UnidentifiedImageError(f"not an image of {', '.join(known)}") from None
    except Image.DecompressionBombError:
        raise Image.DecompressionBombError("too many pixels even to be scaled down") from None
    try:
        if any(tile[0] == "ppm_plain" for tile in image.tile):
            raise ValueError("must not be a PPM of text")
        check_pixels(image, any_size)
    except ValueError:
        image.close()
        raise
    return image


def check_pixels(image: Image.Image, any_size: bool = False) -> None:
    """At most `MAX_PIXELS`, known before it is decoded."""
    if math.prod(image.size) > MAX_PIXELS and not any_size:
        raise ValueError(
            f"{image.width} x {image.height} pixels are more than the limit of {MAX_PIXELS}; prolip data build scales "
            "images down with --max_side"
        )
