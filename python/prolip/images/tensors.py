"""Images as the networks take them: normalised, or of any aspect ratio and cut into patches.

B images, L patches with padding, P side of a patch, M masked images, K kept patches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Of red, green and blue, for pixel values in [0, 1]: OpenAI's CLIP's, as in all released models."""
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
"""Of red, green and blue, for pixel values in [0, 1]."""


class Normalise:
    """Turns uint8 values of red, green and blue side by side, [..., 3 n], into `(values / 255 - mean) / std`.

    Computed in float32 and rounded once to the output dtype.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype, device: torch.device):
        self._scale = torch.tensor([1 / (255 * value) for value in std], dtype=torch.float32, device=device)
        self._bias = torch.tensor(
            [-centre / value for centre, value in zip(mean, std, strict=True)], dtype=torch.float32, device=device
        )
        self.dtype = dtype

    def __call__(self, values: Tensor) -> Tensor:
        """With one kernel that reads the bytes, into new memory."""
        out = torch.empty(values.shape, dtype=self.dtype, device=values.device)
        torch.addcmul(self._bias, values.reshape(-1, 3), self._scale, out=out.view(-1, 3))
        return out

    def table(self) -> NDArray[np.uint8]:
        """The bytes of each value of red, green and blue, [3, 256, width], for the loader and `Preprocess`."""
        values = torch.arange(256, dtype=torch.uint8)[:, None].expand(-1, 3)
        return self(values).T[..., None].contiguous().view(torch.uint8).numpy()


class Patches(NamedTuple):
    """Images as rows of patches, padded to one length.

    An image's patches are in row-major order. A patch holds its pixels row by row, red, green and blue side by side
    (timm's layout for NaFlex). `len` and unpacking are the tuple's.
    """

    patches: Tensor
    """[B, L, P * P * 3], normalised. Values of padding are finite and mean nothing."""
    coords: Tensor
    """[B, L, 2]: row and column of each patch; 0 for padding."""
    grids: Tensor
    """[B, 2]: rows and columns of patches in each image, at least 1."""
    valid: Tensor
    """bool [B, L], False for padding."""

    @classmethod
    def of(cls, images: Tensor | Sequence[Tensor], patch_size: int) -> Patches:
        """Cut normalised images [3, height, width], whole numbers of patches high and wide."""
        grids = torch.tensor([[side // patch_size for side in image.shape[1:]] for image in images])
        cut = [F.pixel_unshuffle(image, patch_size).reshape(3, patch_size**2, -1) for image in images]
        patches = pad_sequence([each.permute(2, 1, 0).flatten(1) for each in cut], batch_first=True)
        return cls.of_grids(patches, grids.to(patches.device))

    @classmethod
    def of_grids(cls, patches: Tensor, grids: Tensor) -> Patches:
        """From patches [B, L, P * P * 3] of images with these grids [B, 2]."""
        places, columns = torch.arange(patches.shape[1], device=grids.device), grids[:, 1:]
        valid = places < grids.prod(1, keepdim=True)
        coords = torch.stack([places // columns, places % columns], -1) * valid[..., None]
        return cls(patches, coords, grids, valid)

    def images(self, patch_size: int) -> list[Tensor]:
        """[3, height, width] each: the inverse of `of`."""
        images = []
        for cut, (rows, columns) in zip(self.patches, self.grids.tolist(), strict=True):
            cells = cut[: rows * columns].reshape(rows, columns, patch_size, patch_size, 3).permute(4, 0, 2, 1, 3)
            images.append(cells.reshape(3, rows * patch_size, columns * patch_size))
        return images

    def to(self, device: torch.device | str) -> Patches:
        """Copy to a device."""
        return self._each(lambda part: part.to(device))

    def rows(self, chosen: slice | Tensor) -> Patches:
        """Choose images by a slice, a mask or numbers."""
        return self._each(lambda part: part[chosen])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Patches:
        return Patches._make(map(change, self))

    def kept(self, kept_patches: Tensor) -> Patches:
        """Choose patches of the first M images: [M, K] numbers within each image, or -1 for none.

        The result is padded to a multiple of 16: each length is compiled once, so we allow only a few.
        """
        kept_patches = F.pad(kept_patches, (0, -kept_patches.shape[1] % 16), value=-1)
        valid = kept_patches >= 0
        places = kept_patches.clamp(min=0)[..., None]
        patches, coords = (part[: len(valid)].take_along_dim(places, 1) for part in (self.patches, self.coords))
        return Patches(patches, coords, self.grids[: len(valid)], valid)
