"""Pillow's pixels, fast: turn images of any kind into what a model takes. N images, H/W pixels, L patches of side P.

pixels = Preprocess.of("preprocessor_config.json")(["a.jpg", "b.png"])  # f32 [2, 3, 224, 224]
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from prolip import _core
from prolip.errors import DataError, UserError, check
from prolip.images.config import Filter, FitConfig
from prolip.images.files import check_pixels, decoding, open_image
from prolip.images.tensors import OPENAI_MEAN, OPENAI_STD, Normalise, Patches
from prolip.store.file_contents import check_regular
from prolip.store.folder import Folder

Pixels = NDArray[np.uint8]
"""[H, W, 3]."""
AnyImage = str | os.PathLike[str] | bytes | Image.Image | NDArray[Any] | Tensor
"""A file's path or address (`s3://`, `gs://`, `az://`), its bytes, a PIL image, an array u8 [H, W, 3] or [H, W], or a
tensor u8 [3, H, W] or [1, H, W]."""
KINDS = "an image is a path, bytes, a PIL image, an array or a tensor"
_FILTERS: dict[Any, Filter] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
_HALF = (0.5, 0.5, 0.5)
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_SQUASHED = {"size": {"height": 224, "width": 224}, "image_mean": _HALF, "image_std": _HALF}
_CROPPED = {"size": {"shortest_edge": 224}, "crop_size": 224, "do_center_crop": True, "resample": 3}
_CROPPED |= {"image_mean": OPENAI_MEAN, "image_std": OPENAI_STD}
# What transformers' processors do unless their file says otherwise. DINOv2 has BiT's.
_PROCESSORS: dict[str, dict[str, Any]] = {
    "CLIP": _CROPPED,
    "Bit": _CROPPED,
    "Siglip": _SQUASHED | {"resample": 3},
    "ViT": _SQUASHED | {"resample": 2},
    "Siglip2": _SQUASHED | {"resample": 2, "patch_size": 16, "max_num_patches": 256},
}


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """Image preprocessing whose pixels equal Pillow's to the bit. Call it with an image, or a list of them.

    An image is converted to RGB (transparency is dropped), resized, cropped or padded, and normalised.
    """

    size: int | tuple[int, int] = 224
    """Height and width in pixels, or side; without a meaning at native aspect."""
    resize: Literal["shortest", "squash", "longest", "native"] = "shortest"
    """`shortest`: cover the size, keeping the aspect ratio; `longest`: fit into it and pad; `squash`: ignore the ratio;
    `native`: keep the ratio, as whole patches."""
    filter: Filter = "bicubic"
    """Pillow's filter."""
    crop: Literal["round", "floor"] = "round"
    """Offset of the centre: rounded to even, as in torchvision, open_clip and timm, or down, as in transformers."""
    resize_size: tuple[int, int] | None = None
    """Before the crop, height and width; None for `size`."""
    fill: tuple[int, int, int] = (0, 0, 0)
    """Colour of what is padded."""
    mean: tuple[float, float, float] = OPENAI_MEAN
    """Of red, green and blue, in [0, 1]; it is subtracted."""
    std: tuple[float, float, float] = OPENAI_STD
    """Of red, green and blue, in [0, 1]; the difference is divided by it."""
    dtype: torch.dtype = torch.float32
    """Of the result: float32, float16 or bfloat16."""
    patch_size: int = 16
    """Side of a patch at native aspect."""
    image_seq_len: int = 256
    """At native aspect, the maximum number of patches."""
    turned: bool | None = None
    """Turn images as EXIF says. None turns those at native aspect, as the loader does."""

    @classmethod
    def of(cls, source: Any) -> Preprocess:
        """The preprocessing of somebody's model, or of ours.

        Transparency is dropped in all. The slow processors of transformers put it on white if they convert images
        (`do_convert_rgb`, set for CLIP, SigLIP and DINOv2), and otherwise refuse such images, as
        `prolip.interop.transformers.fast_processor` does.

        Args:
            source: an open_clip or timm model, a processor of transformers (CLIP, SigLIP, SigLIP 2, ViT, DINOv2), a
                `prolip.load`ed model, or their settings: a mapping (`preprocess_cfg`, `pretrained_cfg`), a JSON file
                with one, a folder with such a file, or a `ModelConfig`.

        Raises:
            UserError: a setting cannot be reproduced to the bit.
        """
        if isinstance(source, str | os.PathLike):
            source = _read_settings(Path(source))
        source = getattr(source, "image_processor", source)
        for name in ("preprocess", "visual", "preprocess_cfg", "pretrained_cfg"):
            source = source if hasattr(source, "to_dict") else getattr(source, name, source)
        if isinstance(source, Preprocess):
            return source
        if hasattr(source, "vision"):
            return cls.of_config(source)
        settings = source if isinstance(source, Mapping) else getattr(source, "to_dict", dict)()
        for name in ("preprocess_cfg", "pretrained_cfg"):
            settings = settings.get(name, settings)
        if "input_size" in settings:
            return cls(**_of_timm(settings))
        if "do_resize" not in settings and _kind(settings) is None:
            return cls(**_of_open_clip(settings))
        scale = settings.get("rescale_factor", 1 / 255)
        check(settings.get("do_rescale", True), "do_rescale", "must be true", False)
        check(abs(255 * scale - 1) < 1e-9, "rescale_factor", "must be 1 / 255", scale)
        settings = _with_defaults(settings)
        is_normal = settings.get("do_normalize", True)
        mean, std = (settings["image_mean"], settings["image_std"]) if is_normal else ((0.0,) * 3, (1.0,) * 3)
        return cls(**of_transformers(settings), mean=tuple(mean), std=tuple(std))

    @classmethod
    def of_config(cls, config: Any) -> Preprocess:
        """Of an architecture of ours, a `ModelConfig`."""
        vision = config.vision
        made = cls(size=vision.height_and_width, filter=vision.interpolation)
        if vision.image_seq_len is None:
            return made
        length = vision.image_seq_len
        return replace(made, resize="native", patch_size=vision.patch_size, image_seq_len=length)

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the result, unless native."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def is_native(self) -> bool:
        """Whether images keep their aspect ratio."""
        return self.resize == "native"

    @cached_property
    def fit(self) -> FitConfig:
        """The settings in the loader."""
        mode = "shortest" if self.resize == "native" else self.resize
        return FitConfig(resize=mode, filter=self.filter, crop=self.crop, resize_size=self.resize_size, fill=self.fill)

    def settings(self) -> dict[str, Any]:
        """What a model's architecture does not say, as plain values."""
        return {
            "size": list(self.sides),
            "resize_mode": self.resize,
            "interpolation": self.filter,
            "mean": list(self.mean),
            "std": list(self.std),
        }

    def check_settings(self, stored: Mapping[str, Any] | None, source: str) -> None:
        """Check that images are prepared as when the model was saved, if it has settings."""
        expected = self.settings()
        if stored is not None and stored != expected:
            key = next((key for key in expected if stored.get(key) != expected[key]), "images")
            raise UserError(source, f"images.{key}: must be {expected.get(key)!r}", f"{stored.get(key)!r}")

    def _normalise(self, device: torch.device) -> Normalise:
        return Normalise(self.mean, self.std, self.dtype, device)

    @cached_property
    def _table(self) -> NDArray[np.uint8]:
        return self._normalise(torch.device("cpu")).table()

    @overload
    def __call__(self, images: AnyImage, threads: int = 0) -> Tensor: ...
    @overload
    def __call__(self, images: Sequence[AnyImage], threads: int = 0) -> Tensor | Patches: ...
    def __call__(self, images: AnyImage | Sequence[AnyImage], threads: int = 0) -> Tensor | Patches:
        """An image, normalised, as [3, H, W] on the CPU; a list as [N, 3, H, W], at native aspect as `Patches`.

        Args:
            images: an image, or a list of them.
            threads: how many decode; 0 for the cores that this process may use.

        Raises:
            UserError: it is not an image of a known kind, or there is no such file.
            DataError: an image cannot be decoded.
        """
        if isinstance(images, list | tuple):
            names = [f"images[{place}]" for place in range(len(images))]
            values, grids = self._values(images, names, self._table, self.dtype, threads)
            return Patches.of_grids(values, grids) if self.is_native else values
        image = cast(AnyImage, images)
        values, grids = self._values([image], [_name(image)], self._table, self.dtype, 1)
        return Patches.of_grids(values, grids).images(self.patch_size)[0] if self.is_native else values[0]

    def batch(self, images: Sequence[Tensor], device: torch.device) -> Tensor | Patches:
        """Join images from `decode`, and normalise them, as the network takes them."""
        if any(image.is_floating_point() for image in images):
            floats = [self._floats(image) for image in images]
            return (Patches.of(floats, self.patch_size) if self.is_native else torch.stack(floats)).to(device)
        where = device if device.type == "cuda" else torch.device("cpu")  # other devices get floats
        normalise = self._normalise(where)
        if not self.is_native:
            return normalise(torch.stack([*images]).to(where)).permute(0, 3, 1, 2).to(device)
        joined = pad_sequence([image.flatten(0, 1) for image in images], batch_first=True).to(where)
        grids = torch.tensor([image.shape[:2] for image in images], device=where)
        return Patches.of_grids(normalise(joined), grids).to(device)

    def _floats(self, image: Tensor) -> Tensor:
        if image.is_floating_point():
            return image.float()
        batch = self.batch([image], torch.device("cpu"))
        return batch[0] if isinstance(batch, Tensor) else batch.images(self.patch_size)[0]

    def decode(self, image: AnyImage, name: str | None = None) -> tuple[Tensor, tuple[int, int]]:
        """An image, u8 [H, W, 3] or native [rows, columns, P * P * 3], and the width and height of its file.

        What `__call__` returned stays as it is. Errors are those of `__call__`, with `name` or the path.
        """
        name = name or _name(image)
        if isinstance(image, Tensor) and image.is_floating_point():
            if not self._made(image.shape):
                form = "made by model.preprocess" if self.is_native else [3, *self.sides]
                raise UserError(name, f"a float tensor must be {form}", list(image.shape))
            return image, (0, 0)
        data, sizes, grids = self._prepared([image], [name], None, 1)
        width, height = sizes[0].tolist()
        if not self.is_native:
            return torch.from_numpy(data).view(*self.sides, 3), (width, height)
        rows, columns = grids[0].tolist()
        patches = torch.from_numpy(data).view(self.image_seq_len, -1)
        return patches[: rows * columns].view(rows, columns, -1), (width, height)

    def _made(self, shape: Sequence[int]) -> bool:
        """Whether `__call__` returns f32 pixels of this shape."""
        if not self.is_native or len(shape) != 3:
            return tuple(shape) == (3, *self.sides)
        channels, height, width = shape
        whole = height % self.patch_size == width % self.patch_size == 0
        return channels == 3 and whole and 0 < height * width <= self.image_seq_len * self.patch_size**2

    def thumbnail(self, image: AnyImage, side: int) -> Pixels:
        """What the model sees of an image, for people to look at: a square of `side` pixels, or as large.

        Errors as for `decode`.
        """
        shown = replace(self, size=side, resize_size=None, patch_size=1, image_seq_len=side**2)
        return shown.decode(image)[0].numpy()

    def features(self, images: Sequence[AnyImage], table: Tensor) -> dict[str, NDArray[Any]]:
        """As a processor of transformers, with the values of a table [3, 256].

        That is `pixel_values` [N, 3, H, W], or at native aspect [N, L, P * P * 3], beside `pixel_attention_mask` [N, L]
        and `spatial_shapes` [N, 2]. Errors as for `__call__`.
        """
        bytes_of = table[..., None].contiguous().view(torch.uint8).numpy()
        names = [f"images[{place}]" for place in range(len(images))]
        values, grids = self._values(images, names, bytes_of, table.dtype, 0)
        made = {"pixel_values": values.numpy()}
        if self.is_native:
            valid = torch.arange(self.image_seq_len) < grids.prod(1, keepdim=True)
            made |= {"pixel_attention_mask": valid.int().numpy(), "spatial_shapes": grids.numpy()}
        return made

    def _values(
        self,
        images: Sequence[Any],
        names: Sequence[str],
        table: NDArray[np.uint8],
        dtype: torch.dtype,
        threads: int,
    ) -> tuple[Tensor, Tensor]:
        data, _, grids = self._prepared(images, names, table, threads)
        shape = (self.image_seq_len, 3 * self.patch_size**2) if self.is_native else (3, *self.sides)
        return torch.from_numpy(data).view(dtype).view(len(images), *shape), torch.from_numpy(grids).long()

    def _prepared(
        self, images: Sequence[Any], names: Sequence[str], table: NDArray[np.uint8] | None, threads: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.int32]]:
        """The bytes of the images [N, bytes], their widths and heights [N, 2], and their grids [N, 2].

        With a table [3, 256, width] values are its entries, `[3, H, W]`, and without u8 `[H, W, 3]`; at native aspect
        both `[L, P * P * 3]`, 0 behind the image's own patches.
        """
        size = (self.patch_size, self.image_seq_len) if self.is_native else self.sides
        threads = threads or (_core.usable_cores() if len(images) > 1 else 1)

        def prepare(sources: Sequence[Any]) -> Any:
            options: Any = {"native": self.is_native, "turned": self.turned, "threads": threads}
            return _core.preprocess(sources, self.fit, size, table, **options)

        sources = [_as_source(*both) for both in zip(images, names, strict=True)]
        data, sizes, grids, failed = prepare(sources)
        rows = data.reshape(len(images), -1)
        for place, other, reason in failed:
            encoded = sources[place]
            encoded = _read(encoded, names[place]) if isinstance(encoded, str) else encoded
            if not other:
                raise DataError(f"cannot be read ({reason})", names[place])
            rows[place], sizes[place], grids[place], again = prepare([_opened(encoded, names[place])])
            assert not again, again
        return rows, sizes, grids


def _name(image: AnyImage) -> str:
    return os.fspath(image) if isinstance(image, str | os.PathLike) else "the image"


def _as_source(image: AnyImage, name: str) -> Any:
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        address = os.fspath(image)
        return _read(address, name) if "://" in address else address
    return _opened(image, name)


def _opened(image: Any, name: str) -> tuple[NDArray[np.uint8], int]:
    """In RGB, by Pillow, with their orientation. Converted before resizing: palette indices cannot be resized."""
    if not isinstance(image, bytes | Image.Image | np.ndarray | Tensor):
        raise UserError(name, KINDS, f"a {type(image).__name__}")
    if isinstance(image, np.ndarray | Tensor):
        image = Image.fromarray(_as_array(image, name))
    if isinstance(image, Image.Image) and 0 in image.size:
        raise UserError(name, "must have at least one pixel", f"{image.width} x {image.height}")
    try:
        with decoding():
            if isinstance(image, bytes):
                image = open_image(image)
            check_pixels(image)
            orientation = image.getexif().get(ExifTags.Base.Orientation)
            return np.array(image.convert("RGB")), int(orientation) if orientation in range(1, 9) else 1
    except ValueError as error:
        raise DataError(f"cannot be read ({error})", name) from error


def of_transformers(settings: Mapping[str, Any]) -> dict[str, Any]:
    """From complete settings of a processor of transformers, but for those of values.

    Raises:
        UserError: a setting cannot be reproduced to the bit.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    resample = given.get("resample", 2)
    check(resample in _FILTERS, "resample", f"must be one of {[*_FILTERS]}", resample)
    check(not given.get("do_pad"), "do_pad", "must be false", True)
    check(given.get("do_resize", True), "do_resize", "must be true", False)
    made: dict[str, Any] = {"filter": _FILTERS[resample], "crop": "floor", "turned": False}
    if "max_num_patches" in given:
        native = {"resize": "native", "patch_size": given["patch_size"], "image_seq_len": given["max_num_patches"]}
        return made | native
    size, crop = given["size"], given.get("crop_size") if given.get("do_center_crop") else None
    sides = {name: value for name, value in size.items() if value}
    if sides.keys() == {"height", "width"}:
        made |= {"resize": "squash", "size": (sides["height"], sides["width"])}
    else:
        check(sides.keys() == {"shortest_edge"}, "size", "must be shortest_edge, or height and width", dict(sides))
        check(crop is not None, "do_center_crop", "must be true with shortest_edge", False)
        made |= {"size": (sides["shortest_edge"],) * 2}
    if crop is not None:
        cropped = (crop, crop) if isinstance(crop, int) else (crop["height"], crop["width"])
        made |= {"size": cropped, "resize_size": made["size"]}
    return made


def _kind(settings: Mapping[str, Any]) -> str | None:
    named = settings.get("image_processor_type") or settings.get("feature_extractor_type") or ""
    for ending in ("Pil", "Fast", "ImageProcessor", "FeatureExtractor"):
        named = named.removesuffix(ending)
    return named or None


def _with_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    kind = _kind(settings)
    check(kind in _PROCESSORS, "image_processor_type", f"must be one of {[*_PROCESSORS]}", kind)
    full = {**_PROCESSORS[cast(str, kind)], **{name: value for name, value in settings.items() if value is not None}}
    if isinstance(size := full["size"], int):  # as files were written before 2023
        full["size"] = {"shortest_edge": size} if full.get("do_center_crop") else {"height": size, "width": size}
    return full


def _of_open_clip(settings: Mapping[str, Any]) -> dict[str, Any]:
    check("size" in settings, "source", "must say how images are prepared", settings)
    settings = {"fill_color": 0, "mean": OPENAI_MEAN, "std": OPENAI_STD, **settings}
    size = settings["size"]
    mode, filter_ = settings.get("resize_mode", "shortest"), settings.get("interpolation", "bicubic")
    height, width = (size, size) if isinstance(size, int) else size[-2:]
    is_oblong = mode == "shortest" and height != width  # open_clip ignores the setting then
    check(mode in {"shortest", "squash", "longest"}, "resize_mode", "must be shortest, squash or longest", mode)
    check(filter_ in {"bicubic", "bilinear", "random"}, "interpolation", "must be bicubic or bilinear", filter_)
    return {
        "size": (height, width),
        "resize": mode,
        "filter": "bilinear" if filter_ == "bilinear" and not is_oblong else "bicubic",
        "mean": _three(settings["mean"]),
        "std": _three(settings["std"]),
        "fill": (settings["fill_color"],) * 3,
    }


def _of_timm(settings: Mapping[str, Any]) -> dict[str, Any]:
    settings = {"mean": _IMAGENET[0], "std": _IMAGENET[1], **{k: v for k, v in settings.items() if v is not None}}
    size, share, mode = (
        settings["input_size"][-2:],
        settings.get("crop_pct", 0.875),
        settings.get("crop_mode", "center"),
    )
    filter_ = settings.get("interpolation", "bicubic")
    check(filter_ in _FILTERS.values(), "interpolation", f"must be one of {[*_FILTERS.values()]}", filter_)
    modes = {"center": "shortest", "squash": "squash", "border": "longest"}
    check(mode in modes, "crop_mode", f"must be one of {[*modes]}", mode)
    before = tuple(math.floor(side / share) for side in size)
    return {
        "size": tuple(size),
        "resize": modes[mode],
        "filter": filter_,
        "resize_size": before,
        "fill": tuple(round(255 * value) for value in settings["mean"]) if mode == "border" else (0, 0, 0),
        "mean": _three(settings["mean"]),
        "std": _three(settings["std"]),
    }


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = map(float, values)
    return red, green, blue


def _read_settings(source: Path) -> Any:
    for name in ("preprocessor_config.json", "open_clip_config.json"):
        source = source / name if (source / name).is_file() else source
    if source.suffix == ".json" and source.is_file():
        return json.loads(source.read_text(encoding="utf-8"))
    raise UserError(source, "must have a preprocessor_config.json or an open_clip_config.json")


def _read(address: str, name: str) -> bytes:
    try:
        if "://" in address:
            return Folder(address).read("")
        check_regular(address)
        return Path(address).read_bytes()
    except FileNotFoundError:
        raise UserError(name, "no such image file") from None
    except (OSError, ValueError) as error:  # a ValueError for a null byte in a path
        raise UserError(name, f"cannot be read ({getattr(error, 'strerror', error)})") from error


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
