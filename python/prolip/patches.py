"""Images cut into patches, each at its own aspect ratio: what a native loader makes and a native image tower takes.

Shapes: B images, L patches of the longest image, T patches of all images, P side of a patch.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Patches(NamedTuple):
    """Images as rows of patches: padded, one row per image, or packed, all images one after the other.

    The patches of an image are in row-major order. A patch holds its pixels row by row, red, green and blue side by
    side (timm's layout for NaFlex).
    """

    patches: Tensor
    """[B, L, P * P * 3], or packed [T, P * P * 3]; normalised. Values of padding mean nothing."""
    coords: Tensor
    """[B, L, 2], or packed [T, 2]: row and column of each patch in its image."""
    grids: Tensor
    """[B, 2]: rows and columns of patches in each image."""
    valid: Tensor | None = None
    """Padded: bool [B, L], False for padding."""
    cu_seqlens: Tensor | None = None
    """Packed: int32 [B + 1], where each image begins; the last is the end of the last image."""
