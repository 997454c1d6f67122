"""How images are fitted to a size."""

from dataclasses import dataclass
from typing import Literal

Filter = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
"""Pillow's filters."""


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How a whole image becomes one of a fixed size, and the filter of every resize."""

    resize: Literal["shortest", "squash", "longest"] = "shortest"
    """`shortest`: cover the size and crop; `longest`: fit into it and pad; `squash`: ignore the aspect ratio."""
    filter: Filter = "bicubic"
    """Pillow's filter, antialiased, but for `nearest`."""
    crop: Literal["round", "floor"] = "round"
    """Offset of the centre: rounded to even, as in torchvision and open_clip, or down, as in transformers."""
    resize_size: tuple[int, int] | None = None
    """Height and width before the crop; None for those of the result."""
    fill: tuple[int, int, int] = (0, 0, 0)
    """Colour of what is padded."""
