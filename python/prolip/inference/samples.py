"""Samples of images of any kind: files, addresses, folders, bytes, arrays, tensors; and the names of shards."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import numpy as np
from PIL import Image
from torch import Tensor

from prolip.data.image_files import find_images
from prolip.errors import UserError, check
from prolip.pixels import KINDS, AnyImage

Images = AnyImage | Iterable[AnyImage]
"""One image, or several. A text may also name a folder of images, or shards as in `LoaderConfig.shards`."""
_SHARDS = re.compile(r"\.(tar(\.\w+)?|tgz|txt)(\?.*)?$|^(@|pipe:)")


class Sample(NamedTuple):
    """A sample that is not decoded yet."""

    key: str
    place: int
    """From 0."""
    image: Any
    """`AnyImage`; anything else is an error of this sample."""
    members: Mapping[str, bytes | None] = MappingProxyType({})
    """Its captions (txt, json), and members to keep."""
    name: str | None = None
    """The image's name in errors; None for its path."""


def samples_of(images: Images) -> Iterator[Sample | str]:
    """Yield the images one by one, and the names of shards. A folder's images are in the order of their paths."""
    several = [cast(AnyImage, images)] if _is_one(images) else images
    if not isinstance(several, Iterable) or hasattr(several, "read"):  # the items of an open file are lines
        raise UserError("images", f"{KINDS}, or a list of them", f"a {type(images).__name__}")
    for place, image in enumerate(several):
        name = f"images[{place}]"
        if isinstance(image, str | os.PathLike):
            yield from _named(os.fspath(image), place, name)
        elif isinstance(image, np.ndarray | Tensor) and image.ndim == 4:
            yield from (Sample(name, row, part, name=f"{name}[{row}]") for row, part in enumerate(image))
        else:
            yield Sample(name, place, image, name=name)


def _named(text: str, place: int, name: str) -> Iterator[Sample | str]:
    if os.path.isdir(text):
        files = find_images(Path(text))
        check(files, name, f"the folder {text} has no image; shards are named as '{text}/*.tar'")
        yield from (Sample(str(path), row, path) for row, path in enumerate(files))
    elif _SHARDS.search(text):
        yield text
    else:
        yield Sample(text, place, text)


def count_images(images: Images) -> int | None:
    """For a progress bar; None if it is not known before they are read."""
    if _is_one(images) or not isinstance(images, Sequence):
        return None
    return None if any(isinstance(item, str | os.PathLike) and is_many(item) for item in images) else len(images)


def _is_one(images: Images) -> bool:
    if isinstance(images, np.ndarray | Tensor):
        return images.ndim <= 3
    return isinstance(images, (str, os.PathLike, bytes, bytearray, memoryview, Image.Image))


def is_many(name: str | os.PathLike[str]) -> bool:
    """Whether a name is that of a folder, shards or an address, not of an image."""
    text = os.fspath(name)
    return bool(_SHARDS.search(text)) or "://" in text or os.path.isdir(text)
