"""Turn one image of any kind into the pixels that a model expects. H/W pixels."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from prolip.data import DataError, NativeConfig, preprocess_image, preprocess_native
from prolip.data.build.images import STORED, UNREADABLE, check_pixels, open_image
from prolip.data.device import Normalise
from prolip.errors import UserError, check
from prolip.folders import Folder
from prolip.image_tensors import OPENAI_MEAN, OPENAI_STD, Patches
from prolip.models import ModelConfig, ProLIP

AnyImage = str | os.PathLike[str] | bytes | Image.Image | NDArray[Any] | Tensor
"""A file's path or address (`s3://`, `gs://`, `az://`), its bytes, a PIL image, an array u8 [H, W, 3] or [H, W], or a
tensor u8 [3, H, W] or [1, H, W]."""
Pixels = NDArray[np.uint8]
"""[S, S, 3]."""
KINDS = "an image is a path, bytes, a PIL image, an array or a tensor"


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """Image preprocessing of a model. Call it with an image of any kind to get the network's input.

    The shortest side is resized and the centre is cropped, unless `resize_mode` says otherwise. EXIF orientation is
    ignored, as in training. With `image_seq_len`, the whole image is turned as EXIF says and keeps its aspect ratio.
    """

    size: tuple[int, int]
    """Height and width in pixels, of square images."""
    mean: tuple[float, float, float] = OPENAI_MEAN
    """Mean of red, green and blue, in [0, 1]; it is subtracted."""
    std: tuple[float, float, float] = OPENAI_STD
    """Standard deviation of red, green and blue, in [0, 1]; the difference is divided by it."""
    resize_mode: str = "shortest"
    """`shortest`: resize the shortest side and crop the centre; `native`: with `image_seq_len`; or another mode of
    open_clip."""
    interpolation: str = "bicubic"
    """Filter for resizing."""
    transform: Callable[[Any], Tensor] | None = None
    """From a PIL image to f32 [3, H, W]; None if the loader gives the same pixels."""
    patch_size: int = 1
    """With `image_seq_len`, the side of a patch. H and W are multiples of it."""
    image_seq_len: int | None = None
    """Maximum number of patches of an image that keeps its aspect ratio; None for images of `size`."""

    @classmethod
    def of_config(cls, config: ModelConfig) -> Preprocess:
        """The preprocessing of an architecture."""
        vision = config.vision
        return cls(
            size=vision.height_and_width,
            resize_mode="shortest" if vision.image_seq_len is None else "native",
            patch_size=vision.patch_size,
            image_seq_len=vision.image_seq_len,
        )

    def native(self, batch_size: int) -> NativeConfig | None:
        """The loader's setting for batches of this size; None for square images."""
        if self.image_seq_len is None:
            return None
        return NativeConfig(patch_size=self.patch_size).of_one_length(self.image_seq_len, batch_size)

    def settings(self) -> dict[str, Any]:
        """What a model's architecture does not say, as plain values."""
        return {
            "size": list(self.size),
            "resize_mode": self.resize_mode,
            "interpolation": self.interpolation,
            "mean": list(self.mean),
            "std": list(self.std),
        }

    def __call__(self, image: AnyImage) -> Tensor:
        """The network's input for an image, f32 [3, H, W], normalised, on the CPU.

        Raises:
            UserError: it is not an image of a known kind, or there is no such file.
            DataError: it cannot be decoded.
        """
        return self._normalised(self.decode(image))

    def _normalised(self, decoded: Tensor) -> Tensor:
        if decoded.dtype != torch.uint8:
            return decoded.float()
        return Normalise(self.mean, self.std, torch.float32, decoded.device)(decoded).permute(2, 0, 1)

    def batch(self, images: Sequence[Tensor], device: torch.device) -> Tensor | Patches:
        """Join images from `decode`, and normalise them, as the network takes them."""
        where = device if device.type == "cuda" else torch.device("cpu")  # other devices get floats
        normalise = Normalise(self.mean, self.std, torch.float32, where)
        is_decoded = all(image.dtype == torch.uint8 for image in images)
        if not is_decoded:
            images = [self._normalised(image) for image in images]
        if self.image_seq_len is None:
            pixels = torch.stack([*images]).to(where)
            return (normalise(pixels).permute(0, 3, 1, 2) if is_decoded else pixels).to(device)
        patches = Patches.of([image.permute(2, 0, 1) if is_decoded else image for image in images], self.patch_size)
        if is_decoded:
            patches = patches.to(where)._replace(patches=normalise(patches.patches))
        return patches.to(device)

    def decode(self, image: AnyImage, name: str | None = None) -> Tensor:
        """Decode, resize and crop an image: u8 [H, W, 3], or f32 [3, H, W] by the model's own transform.

        What `__call__` returned stays as it is. Errors, as there, call the image `name`, or by its path.
        """
        name = name or (str(os.fspath(image)) if isinstance(image, str | os.PathLike) else "the image")
        if isinstance(image, Tensor) and image.is_floating_point():
            if not self._made(image.shape):
                form = [3, *self.size] if self.image_seq_len is None else "made by model.preprocess"
                raise UserError(name, f"a float tensor must be {form}", list(image.shape))
            return image
        if self.transform is not None:
            return self.transform(_as_pil(image, name))
        turned = self.image_seq_len is not None
        data = _as_bytes(image, name, turned)
        try:
            return self._through_loader(data, name)
        except DataError:
            # Pillow decodes other formats, such as GIF and TIFF, and no file that the loader refuses.
            with suppress(*UNREADABLE), open_image(data) as opened:
                if opened.format in STORED:
                    raise
        return self._through_loader(_as_bytes(_as_pil(data, name), name, turned), name)

    def _made(self, shape: Sequence[int]) -> bool:
        """Whether f32 pixels of this shape are what `__call__` returns for an image."""
        if self.image_seq_len is None or len(shape) != 3:
            return tuple(shape) == (3, *self.size)
        channels, height, width = shape
        whole = height % self.patch_size == width % self.patch_size == 0
        return channels == 3 and whole and 0 < height * width <= self.image_seq_len * self.patch_size**2

    def thumbnail(self, image: AnyImage, side: int) -> Pixels:
        """The part of an image that the model sees, for people to look at: a square of `side` pixels, or as large.

        Errors as for `decode`.
        """
        length = None if self.image_seq_len is None else side**2
        shown = replace(self, size=(side, side), transform=None, patch_size=1, image_seq_len=length)
        return shown.decode(image).numpy()

    def _through_loader(self, data: bytes, name: str) -> Tensor:
        try:
            if self.image_seq_len is None:
                return torch.from_numpy(preprocess_image(data, self.size[0]))
            return torch.from_numpy(preprocess_native(data, self.patch_size, self.image_seq_len))
        except DataError as error:
            raise DataError(f"{name}: cannot be read ({error})") from error


def square(image: AnyImage, side: int) -> Pixels:
    """The central square of an image, for people to look at. Errors as for `Preprocess.decode`."""
    return Preprocess(size=(side, side)).decode(image).numpy()


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


def _as_bytes(image: AnyImage, name: str, turned: bool = False) -> bytes:
    """The image as an encoded file; decoded pixels become a PNG, so that the loader's own code resizes them.

    If `turned`, pixels of Pillow's are turned as EXIF says. A file keeps its tag.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        address = os.fspath(image)
        try:
            return Folder(address).read("") if "://" in address else Path(image).read_bytes()
        except FileNotFoundError:
            raise UserError(name, "no such image file") from None
        except (OSError, ValueError) as error:  # a ValueError for a null byte in a path
            raise UserError(name, f"cannot be read ({getattr(error, 'strerror', error)})") from error
    if not isinstance(image, Image.Image | np.ndarray | Tensor):
        raise UserError(name, KINDS, f"a {type(image).__name__}")
    buffer = io.BytesIO()
    rgb = _as_pil(image, name)
    rgb = ImageOps.exif_transpose(rgb) if turned else rgb
    rgb.info.clear()  # a PNG would have its profile and its transparent colour
    rgb.save(buffer, format="PNG", compress_level=0)
    return buffer.getvalue()


def _as_pil(image: AnyImage, name: str) -> Image.Image:
    """The image in RGB. As in the loader, it is converted before resizing: palette indices cannot be resized."""
    if isinstance(image, np.ndarray | Tensor):
        image = Image.fromarray(_as_array(image, name))
    if isinstance(image, Image.Image) and 0 in image.size:
        raise UserError(name, "must have at least one pixel", f"{image.width} x {image.height}")
    try:
        if isinstance(image, Image.Image):
            check_pixels(image)
            return image.convert("RGB")
        with open_image(_as_bytes(image, name)) as opened:
            return opened.convert("RGB")
    except UserError:
        raise
    except UNREADABLE as error:
        raise DataError(f"{name}: cannot be read ({error})") from error


def _as_array(image: NDArray[Any] | Tensor, name: str) -> NDArray[np.uint8]:
    """As u8 [H, W, 3] or [H, W]."""
    is_tensor = isinstance(image, Tensor)
    form = "uint8 [3, H, W] or [1, H, W], or float [3, H, W] from model.preprocess"
    if not is_tensor:
        form = "uint8 [H, W, 3] or [H, W]; values from 0 to 1 become (255 * array).astype('uint8')"
    pixels = np.asarray(image.detach().cpu() if isinstance(image, Tensor) else image)
    if is_tensor and pixels.ndim == 3:
        pixels = pixels.transpose(1, 2, 0)
    has_channels = pixels.ndim == 3 and pixels.shape[2] in {1, 3}
    if pixels.dtype != np.uint8 or not (has_channels or (pixels.ndim == 2 and not is_tensor)):
        raise UserError(name, f"must be {form}", f"{image.dtype} {list(image.shape)}")
    pixels = np.ascontiguousarray(pixels)
    return pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels


def square_image_size(model: ProLIP) -> int:
    """In pixels; a UserError if they are not square."""
    size = model.config.vision.image_size
    if not isinstance(size, int):
        raise UserError("vision.image_size", "images must be square", size)
    return size
