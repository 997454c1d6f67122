"""Turn one image of any kind into the pixels that a model expects. H/W pixels."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from prolip import pixels as exact
from prolip.data import NativeConfig
from prolip.data.device import Normalise
from prolip.data.image_files import UNREADABLE, open_image
from prolip.errors import UserError, check
from prolip.image_tensors import Patches
from prolip.models import ModelConfig, ProLIP
from prolip.pixels import AnyImage

Pixels = NDArray[np.uint8]
"""[S, S, 3]."""


@dataclass(frozen=True)
class Preprocess:
    """Image preprocessing of a model. Call it with an image of any kind to get the network's input.

    EXIF orientation is ignored, as in training; but at native aspect, images are turned as it says.
    """

    pixels: exact.Preprocess
    """The settings. Call it with a list of images to prepare them at once."""

    @classmethod
    def of_config(cls, config: ModelConfig) -> Preprocess:
        """Return the preprocessing of an architecture."""
        return cls(exact.Preprocess.of_config(config))

    def native(self, batch_size: int) -> NativeConfig | None:
        """Return the loader's setting for batches of this size; None for images of one size."""
        pixels = self.pixels
        if not pixels.is_native:
            return None
        return NativeConfig(patch_size=pixels.patch_size).of_one_length(pixels.image_seq_len, batch_size)

    def settings(self) -> dict[str, Any]:
        """Return what a model's architecture does not say, as plain values."""
        pixels = self.pixels
        return {
            "size": list(pixels.sides),
            "resize_mode": pixels.resize,
            "interpolation": pixels.filter,
            "mean": list(pixels.mean),
            "std": list(pixels.std),
        }

    def __call__(self, image: AnyImage) -> Tensor:
        """Return the network's input for an image, f32 [3, H, W], normalised, on the CPU.

        Raises:
            UserError: it is not an image of a known kind, or there is no such file.
            DataError: it cannot be decoded.
        """
        return self._normalised(self.decode(image))

    def batch(self, images: Sequence[Tensor], device: torch.device) -> Tensor | Patches:
        """Join images from `decode`, and normalise them, as the network takes them."""
        where = device if device.type == "cuda" else torch.device("cpu")  # other devices get floats
        normalise = Normalise(self.pixels.mean, self.pixels.std, torch.float32, where)
        is_decoded = all(image.dtype == torch.uint8 for image in images)
        if not self.pixels.is_native:
            if not is_decoded:
                return torch.stack([self._normalised(image) for image in images]).to(device)
            return normalise(torch.stack([*images]).to(where)).permute(0, 3, 1, 2).to(device)
        rows = [image if is_decoded else self._rows(image) for image in images]
        joined = pad_sequence([row.flatten(0, 1) for row in rows], batch_first=True).to(where)
        grids = torch.tensor([row.shape[:2] for row in rows], device=where)
        return Patches.of_grids(normalise(joined) if is_decoded else joined, grids).to(device)

    def _normalised(self, image: Tensor) -> Tensor:
        """What `decode` returned as f32 [3, H, W]."""
        if image.is_floating_point():
            return image.float()
        batch = self.batch([image], torch.device("cpu"))
        return batch[0] if isinstance(batch, Tensor) else batch.images(self.pixels.patch_size)[0]

    def _rows(self, image: Tensor) -> Tensor:
        """What `decode` returned as f32 [rows, columns, P * P * 3]."""
        cut = Patches.of([self._normalised(image)], self.pixels.patch_size)
        return cut.patches[0].view(*cut.grids[0].tolist(), -1)

    def decode(self, image: AnyImage, name: str | None = None) -> Tensor:
        """Decode and fit an image: u8 [H, W, 3], or at native aspect [rows, columns, P * P * 3].

        What `__call__` returned stays as it is. Errors call the image `name`, or by its path.

        Raises:
            UserError: it is not an image of a known kind, or there is no such file.
            DataError: it cannot be decoded.
        """
        name = name or (str(os.fspath(image)) if isinstance(image, str | os.PathLike) else "the image")
        pixels = self.pixels
        if isinstance(image, Tensor) and image.is_floating_point():
            if not self._made(image.shape):
                form = "made by model.preprocess" if pixels.is_native else [3, *pixels.sides]
                raise UserError(name, f"a float tensor must be {form}", list(image.shape))
            return image
        data, grids = pixels.prepared([image], [name])
        if not pixels.is_native:
            return torch.from_numpy(data).view(*pixels.sides, 3)
        rows, columns = grids[0].tolist()
        patches = torch.from_numpy(data).view(pixels.image_seq_len, -1)
        return patches[: rows * columns].view(rows, columns, -1)

    def _made(self, shape: Sequence[int]) -> bool:
        """Whether f32 pixels of this shape are what `__call__` returns for an image."""
        pixels = self.pixels
        if not pixels.is_native or len(shape) != 3:
            return tuple(shape) == (3, *pixels.sides)
        channels, height, width = shape
        whole = height % pixels.patch_size == width % pixels.patch_size == 0
        return channels == 3 and whole and 0 < height * width <= pixels.image_seq_len * pixels.patch_size**2

    def thumbnail(self, image: AnyImage, side: int) -> Pixels:
        """The part of an image that the model sees, for people to look at: a square of `side` pixels, or as large.

        Errors as for `decode`.
        """
        shown = replace(self.pixels, size=side, resize_size=None, patch_size=1, image_seq_len=side**2)
        return Preprocess(shown).decode(image).numpy()


def square(image: AnyImage, side: int) -> Pixels:
    """The central square of an image, for people to look at. Errors as for `Preprocess.decode`."""
    return Preprocess(exact.Preprocess(size=side)).decode(image).numpy()


def pixel_size(image: bytes | Path, turned: bool = False) -> tuple[int, int]:
    """Width and height of an image file, if asked after the turn that EXIF says; 0 if Pillow cannot read it."""
    with suppress(*UNREADABLE), open_image(image) as opened:
        width, height = opened.size
        return (height, width) if turned and opened.getexif().get(ExifTags.Base.Orientation, 1) > 4 else (width, height)
    return 0, 0


def image_settings(config: ModelConfig) -> dict[str, Any]:
    """How images are prepared for a model, as plain values."""
    return Preprocess.of_config(config).settings()


def check_image_settings(stored: Mapping[str, Any] | None, config: ModelConfig, source: str) -> None:
    """Check that images are prepared as when the model was saved; a model without settings is not checked."""
    expected = image_settings(config)
    if stored is not None and stored != expected:
        key = next((key for key in expected if stored.get(key) != expected[key]), "images")
        raise UserError(source, f"images.{key}: must be {expected.get(key)!r}", f"{stored.get(key)!r}")


def check_image_file(path: str | Path) -> None:
    """Check that an image file exists, before a model is opened, which takes longer."""
    check(Path(path).is_file(), path, "no such image file")


def square_image_size(model: ProLIP) -> int:
    """In pixels; a UserError if they are not square."""
    size = model.config.vision.image_size
    if not isinstance(size, int):
        raise UserError("vision.image_size", "images must be square", size)
    return size
