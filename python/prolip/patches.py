"""Images cut into patches, each at its own aspect ratio: what a native loader makes and a native image tower takes.

Shapes: B images, L patches of the longest image, T patches of all images, P side of a patch, M masked images, K kept
patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


class Patches(NamedTuple):
    """Images as rows of patches: padded, one row per image, or packed, all images one after the other.

    The patches of an image are in row-major order. A patch holds its pixels row by row, red, green and blue side by
    side (timm's layout for NaFlex). `len` and unpacking are the tuple's.
    """

    patches: Tensor
    """[B, L, P * P * 3], or packed [T, P * P * 3]; normalised. Values of padding mean nothing."""
    coords: Tensor
    """[B, L, 2], or packed [T, 2]: row and column of each patch in its image; 0 for padding."""
    grids: Tensor
    """[B, 2]: rows and columns of patches in each image, at least 1."""
    valid: Tensor | None = None
    """Padded: bool [B, L], False for padding; None if there is none."""
    cu_seqlens: Tensor | None = None
    """Packed: int32 [B + 1], where each image begins; the last is the end of the last image, before any padding."""

    @classmethod
    def of(cls, images: Tensor | Sequence[Tensor], patch_size: int) -> Patches:
        """Cut normalised images, [B, 3, height, width] or [3, height, width] each, into whole patches, padded.

        Pixels after the last whole patch are left out.
        """
        if isinstance(images, Tensor):
            rows, columns = images.shape[2] // patch_size, images.shape[3] // patch_size
            whole = images[..., : rows * patch_size, : columns * patch_size]
            cut = whole.reshape(-1, 3, rows, patch_size, columns, patch_size)
            patches = cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
            axes = (torch.arange(size, device=images.device) for size in (rows, columns))
            coords = torch.cartesian_prod(*axes).expand(patches.shape[0], -1, -1)
            return cls(patches, coords, coords[:, -1] + 1)
        each = [cls.of(image[None], patch_size) for image in images]
        patches = pad_sequence([one.patches[0] for one in each], batch_first=True)
        return cls.of_grids(patches, torch.cat([one.grids for one in each]))

    @classmethod
    def of_grids(cls, patches: Tensor, grids: Tensor) -> Patches:
        """Take padded patches [B, L, P * P * 3] of images with these grids [B, 2]."""
        places, columns = torch.arange(patches.shape[1], device=grids.device), grids[:, 1:]
        valid = places < grids.prod(1, keepdim=True)
        coords = torch.stack([places // columns, places % columns], -1) * valid[..., None]
        return cls(patches, coords, grids, valid)

    @property
    def len_images(self) -> int:
        """Number of images."""
        return self.grids.shape[0]  # len() would be a constant in an exported graph

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Patches:
        """Copy to a device; `dtype` is that of the pixels."""
        moved = Patches(*(None if part is None else part.to(device=device) for part in self))  # type: ignore[arg-type]
        return moved._replace(patches=moved.patches.to(dtype=dtype))

    def rows(self, chosen: slice | Tensor) -> Patches:
        """Choose images by a slice, a mask or their numbers; the form stays. Packed, the host waits for the device."""
        if self.cu_seqlens is None:
            return Patches(*(None if part is None else part[chosen] for part in self))  # type: ignore[arg-type]
        starts, lengths = self.cu_seqlens[:-1][chosen], self.cu_seqlens.diff()[chosen]
        ends = F.pad(lengths.cumsum(0), (1, 0)).to(starts.dtype)
        total = int(ends[-1])
        shifts = (starts - ends[:-1]).repeat_interleave(lengths, output_size=total)
        places = torch.arange(total, device=shifts.device) + shifts
        return Patches(self.patches[places], self.coords[places], self.grids[chosen], None, ends)

    def kept(self, kept_patches: Tensor) -> Patches:
        """Choose patches of the first M images, padded: [M, K] numbers within each image, or -1 for none."""
        length = self.patches.shape[1]
        starts = self.cu_seqlens
        if starts is None:
            starts = torch.arange(self.len_images, device=kept_patches.device) * length
        places = starts[: len(kept_patches), None] + kept_patches.clamp(min=0)
        patches, coords = (part.flatten(0, -2)[places] for part in (self.patches, self.coords))
        return Patches(patches, coords, self.grids[: len(kept_patches)], kept_patches >= 0)

    def padded(self) -> Patches:
        """The padded form; the host waits for the device if it is another."""
        if self.cu_seqlens is None:
            return self
        lengths = self.cu_seqlens.diff()
        places = torch.arange(rounded_up(int(lengths.max())), device=lengths.device)
        return self.kept(torch.where(places < lengths[:, None], places, -1))


def rounded_up(length: int) -> int:
    """Return the next multiple of 16: compiled code is made anew for each length."""
    return -(-length // 16) * 16
