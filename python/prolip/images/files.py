"""Find image files in folders, and open images with Pillow."""

import io
import math
import re
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from prolip import _core
from prolip.errors import check
from prolip.store.file_contents import check_regular

EXTENSIONS = {
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".jp2", ".avif", ".heic", ".heif"),
}
"""What Pillow cannot read counts as a bad image."""
STORED = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}
"""Formats of the loader. An MPO starts with an ordinary JPEG."""
FORMATS = (*STORED, "GIF", "BMP", "TIFF", "JPEG2000", "AVIF", "HEIF", "PPM", "TGA")
"""Formats asked of Pillow. Others hide images of any size, as ICO does, or run programs, as EPS does."""
MAX_PIXELS: int = _core.MAX_PIXELS
"""The loader skips larger images, so they are not stored."""
MAX_FOLDERS = 1 << 20
_BLANK = rb"\s(\s|#.*\n)*"
_BINARY_PPM = re.compile(rb"(P4(%b\d+){2}|P[56](%b\d+){3})\s" % (_BLANK, _BLANK))
"""Pillow reads text and comments letter by letter, which takes minutes."""


def find_images(source: Path) -> list[Path]:
    """The image files below a folder, by extension, sorted. Hidden files and folders are skipped.

    A folder that several links lead to is searched once. A broken link is listed, so that reading it fails by its name.

    Raises:
        UserError: it has more than `MAX_FOLDERS` folders.
    """
    found, known, folders = list[Path](), set[Path](), deque([source])
    while folders:
        folder = folders.popleft()
        if (real := folder.resolve()) in known:
            continue
        check(len(known) < MAX_FOLDERS, source, f"must have at most {MAX_FOLDERS} folders")
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


@contextmanager
def decoding() -> Iterator[None]:
    """Raise a ValueError for whatever Pillow raises: for damaged files it is of any class."""
    try:
        yield
    except Exception as error:
        raise ValueError(str(error) or type(error).__name__) from error


def open_image(data: bytes | Path, *, any_size: bool = False) -> Image.Image:
    """Of at most `MAX_PIXELS`, or of any size that Pillow takes. Nothing is decoded yet."""
    if isinstance(data, Path):
        check_regular(data)
        data = data.read_bytes()
    try:
        with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
            Image.init()
            is_text = data[:1] == b"P" and not _BINARY_PPM.match(data[:1024])
            known = [kind for kind in FORMATS if kind in Image.OPEN and not (is_text and kind == "PPM")]
            image = Image.open(io.BytesIO(data), formats=known)
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
