"""`fast_processor`: an image processor of transformers with the slow one's pixels, decoded and resized in Rust.

N images, L patches, P side of a patch.
"""

from __future__ import annotations

import base64
import copy
import os
from collections.abc import Iterator
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from PIL import ImageOps
from transformers import AutoImageProcessor, BatchFeature
from transformers.image_processing_backends import PilBackend
from transformers.image_transforms import normalize, rescale
from transformers.image_utils import ChannelDimension
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

from prolip.errors import check
from prolip.images.files import STORED, open_image
from prolip.images.preprocess import Preprocess, of_transformers

_STEPS = ("process_image", "resize", "center_crop", "rescale", "normalize", "pad", "_preprocess")


class _Fast:
    """Replaces what a slow processor does from images to arrays."""

    def _prepare_image_like_inputs(self, images: Any, *_args: Any, **options: Any) -> list[Any]:
        """Paths, bytes and arrays u8 [H, W, 3] of single or nested images."""
        given = [*_flat(images)]
        # A named file is turned as EXIF says, as transformers reads it; bytes are not, as an opened image.
        encoded = bytes if any(isinstance(image, bytes) for image in given) else str
        return [self._source(image, encoded, options) for image in given]

    def _source(self, image: Any, encoded: Any, options: dict[str, Any]) -> Any:
        slow: Any = super()
        if isinstance(image, bytes) and _is_rgb_jpeg(image):
            return image
        if isinstance(image, encoded) and (encoded is bytes or os.path.isfile(image)):
            with open_image(image if encoded is bytes else Path(image)) as opened:
                is_opaque = "A" not in opened.getbands() and "transparency" not in opened.info
                is_rgb = opened.mode == "RGB" or options.get("do_convert_rgb")
                if opened.format in STORED and is_opaque and is_rgb:
                    return image
        if isinstance(image, bytes):
            image = open_image(image)
        elif isinstance(image, str):
            image = ImageOps.exif_transpose(open_image(_fetched(image))).convert("RGB")
        kept = {name: options.get(name) for name in ("do_convert_rgb", "input_data_format")}
        pixels = slow.process_image(image, **kept)
        is_rgb = pixels.dtype == np.uint8 and pixels.shape[0] == 3
        check(is_rgb, "images", "must have 8 bits of red, green and blue", f"{pixels.dtype} {list(pixels.shape)}")
        return np.ascontiguousarray(np.moveaxis(pixels, 0, -1))

    def _preprocess(self, images: list[Any], return_tensors: Any = None, **options: Any) -> BatchFeature:
        rescales, normalises = options["do_rescale"], options["do_normalize"]
        check(rescales or normalises, "do_rescale", "must be true without do_normalize", rescales)
        sizes = {name: dict(options[name]) for name in ("size", "crop_size") if options.get(name) is not None}
        fitted = of_transformers({**options, **sizes})
        factor = options["rescale_factor"] if rescales else None
        table = _table(factor, *(options[name] if normalises else None for name in ("image_mean", "image_std")))
        exact = Preprocess(**fitted | {"turned": any(isinstance(image, str) for image in images)})
        made = exact.features(images, table)
        return BatchFeature(made if return_tensors else {k: [*v] for k, v in made.items()}, tensor_type=return_tensors)


def fast_processor(source: Any) -> Any:
    """A processor of transformers that is called as before, with the slow (Pillow) one's values, and faster.

    It also takes the bytes of images, and decodes and resizes on all cores that this process may use. As in
    transformers, transparency becomes white, and only images named by a path are turned as their EXIF tag says.

    Args:
        source: a name or folder for `AutoImageProcessor.from_pretrained`, an image processor of transformers (slow or
            fast), or a processor with one, of which a copy is returned.

    Raises:
        UserError: here or in a call, a setting cannot be reproduced to the last bit.
    """
    if isinstance(source, str | os.PathLike):
        source = AutoImageProcessor.from_pretrained(source, backend="pil")
    if hasattr(source, "image_processor"):
        whole = copy.copy(source)
        whole.image_processor = fast_processor(source.image_processor)
        return whole
    kind = type(source)
    if not isinstance(source, PilBackend):
        place = kind.__module__.replace(".image_processing_", ".image_processing_pil_")
        kind = getattr(import_module(place), f"{kind.__name__}Pil", kind) if place != kind.__module__ else kind
    own = [name for name in _STEPS if getattr(kind, name, None) is not getattr(PilBackend, name)]
    check(kind is Siglip2ImageProcessorPil or not own, "image_processor", "has steps of its own", (kind.__name__, *own))
    settings = {name: value for name, value in source.to_dict().items() if name in kind.valid_kwargs.__annotations__}
    fast = type(kind.__name__, (_Fast, kind), {})(**settings)
    _ = of_transformers({**settings, **fast.to_dict()})
    return fast


@lru_cache
def _table(factor: float | None, mean: Any, std: Any) -> torch.Tensor:
    """By the slow processor's own arithmetic, once for each value: [3, 256]."""
    options: Any = dict.fromkeys(("data_format", "input_data_format"), ChannelDimension.FIRST)
    values = np.arange(256, dtype=np.uint8)[None, None].repeat(3, 0)
    values = rescale(values, factor, **options) if factor is not None else values
    values = normalize(values, mean, std, **options) if mean is not None else values
    return torch.from_numpy(values[:, 0])


def _fetched(image: str) -> bytes | Path:
    """The file, or the bytes, of what transformers takes: an address, a path, or base64, of any format."""
    if image.startswith(("http://", "https://")):
        return httpx.get(image, follow_redirects=True).content
    return Path(image) if os.path.isfile(image) else base64.decodebytes(image.rpartition(",")[2].encode())


def _is_rgb_jpeg(data: bytes) -> bool:
    """By the header's three components. Pillow says so too, but takes longer."""
    place, frames = 2, (b"\xff\xc0", b"\xff\xc1", b"\xff\xc2")
    while data[place : place + 1] == b"\xff" and data[place : place + 2] not in frames:
        place += 2 + int.from_bytes(data[place + 2 : place + 4])
    return data[:2] == b"\xff\xd8" and data[place : place + 2] in frames and data[place + 9 : place + 10] == b"\x03"


def _flat(images: Any) -> Iterator[Any]:
    if isinstance(images, list | tuple) or getattr(images, "ndim", 0) > 3:
        for image in images:
            yield from _flat(image)
    else:
        yield images
