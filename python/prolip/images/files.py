"""Find image files in folders, and open images with Pillow: which formats, and how large."""

import io
import math
import warnings
import zlib
from collections.abc import Iterator
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
UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, zlib.error, Image.DecompressionBombError)
"""What Pillow raises for damaged files."""


def find_images(source: Path) -> list[Path]:
    """The image files below a folder, by extension, sorted. Hidden files and folders are skipped.

    A broken link is listed, so that the error of reading it names it.
    """
    return sorted(_images_below(source, ()))


def _images_below(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    real = folder.resolve()
    if real in above:
        return  # a link to a folder that it is in
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _images_below(path, (*above, real))
        elif path.suffix.lower() in EXTENSIONS and (path.is_file() or path.is_symlink()):
            yield path


def open_image(data: bytes | Path, *, any_size: bool = False) -> Image.Image:
    """Open an image of at most `MAX_PIXELS`, or of any size that Pillow takes. Nothing is decoded yet."""
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
