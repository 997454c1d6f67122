"""Turn images and captions into a model's inputs, as the loader does.

N images or captions, L tokens or patches, P side of a patch.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from transformers import BatchEncoding, BatchFeature, PreTrainedTokenizerFast
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_transforms import to_pil_image
from transformers.image_utils import load_image
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil
from transformers.processing_utils import ProcessorMixin

from prolip.data.cleaning import cleaner
from prolip.images.tensors import OPENAI_MEAN, OPENAI_STD

try:
    from prolip.data import DataError
    from prolip.errors import UserError
    from prolip.pixels import Preprocess
except ImportError:  # an exported model, and no prolip
    Preprocess = None  # type: ignore[assignment,misc]


class ProLIPImageProcessor(BaseImageProcessor):
    """Resizes images and normalises them: the loader's pixels.

    The shortest side is resized and the centre cropped; or, with native aspect, the whole image is cut into patches.
    prolip does so if installed, else Pillow, with the same values.
    """

    model_input_names = ("pixel_values",)

    def __init__(
        self,
        *,
        size: dict[str, int] | None = None,
        image_mean: Sequence[float] = OPENAI_MEAN,
        image_std: Sequence[float] = OPENAI_STD,
        patch_size: int = 16,
        max_num_patches: int | None = None,
        resample: int = Image.Resampling.BICUBIC,
        **kwargs: Any,
    ) -> None:
        """Takes the settings in a preprocessor_config.json.

        Args:
            size: {"shortest_edge": side of the square images in pixels}; 224 if None.
            image_mean: of red, green and blue, in [0, 1].
            image_std: of red, green and blue, in [0, 1].
            patch_size: side of a patch in pixels.
            max_num_patches: of an image with native aspect; None for square images.
            resample: Pillow's filter.
            kwargs: settings of transformers.
        """
        super().__init__(**kwargs)
        self.size = size or {"shortest_edge": 224}
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)
        self.patch_size = patch_size
        self.max_num_patches = max_num_patches
        self.resample = int(resample)

    def preprocess(self, images: Any, return_tensors: str | None = None, **_unused: Any) -> BatchFeature:
        """{"pixel_values": f32 [N, 3, side, side]}, or with native aspect what SigLIP 2's processor returns.

        That is `pixel_values` f32 [N, L, P * P * 3], `pixel_attention_mask` [N, L], 0 for padding, and `spatial_shapes`
        [N, 2], rows and columns of patches. L is `max_num_patches`.

        Args:
            images: one image or a list of them: PIL images, paths, URLs, or arrays. As in the loader, orientation tags
                are ignored, except in downloaded images and with native aspect.
            return_tensors: "pt" or "np"; a list of tensors, by Pillow, if None.
        """
        several = images if isinstance(images, list | tuple) else [images]
        if return_tensors and several and Preprocess is not None:
            with suppress(DataError, UserError):  # Pillow reads it, or says what is wrong
                return BatchFeature(self._by_prolip(several), tensor_type=return_tensors)
        opened = map(_open, several)
        if self.max_num_patches is None:
            pixels = [self._pixels(image.convert("RGB")) for image in opened]
            return BatchFeature({"pixel_values": pixels}, tensor_type=return_tensors)
        native = Siglip2ImageProcessorPil(
            patch_size=self.patch_size,
            max_num_patches=self.max_num_patches,
            resample=self.resample,
            image_mean=self.image_mean,
            image_std=self.image_std,
        )
        turned = [ImageOps.exif_transpose(image).convert("RGB") for image in opened]
        return native(turned, return_tensors=return_tensors)

    def _by_prolip(self, images: Sequence[Any]) -> dict[str, Any]:
        resample: Any = Image.Resampling(self.resample).name.lower()
        is_native = self.max_num_patches is not None
        exact = Preprocess(
            size=self.size["shortest_edge"],
            resize="native" if is_native else "shortest",
            filter=resample,
            patch_size=self.patch_size,
            image_seq_len=self.max_num_patches or 1,
        )
        table = self._normalised(torch.arange(256)[:, None]).T
        return exact.features([image if _is_file(image) else _open(image) for image in images], table)

    def _pixels(self, image: Image.Image) -> Tensor:
        square = np.asarray(_square(image, self.size["shortest_edge"], Image.Resampling(self.resample)))
        return self._normalised(torch.tensor(square)).permute(2, 0, 1)

    def _normalised(self, values: Tensor) -> Tensor:
        return (values.float() / 255.0 - torch.tensor(self.image_mean)) / torch.tensor(self.image_std)


def _is_file(image: Any) -> bool:
    return isinstance(image, str | Path) and os.path.isfile(image)


def _open(image: Any) -> Image.Image:
    if _is_file(image):
        return Image.open(io.BytesIO(Path(image).read_bytes()))
    opened: Image.Image = load_image(image) if isinstance(image, str) else to_pil_image(image)
    return opened


def _square(image: Image.Image, side: int, resample: Image.Resampling) -> Image.Image:
    """Resize the shortest side, and crop the centre, with torchvision's rounding."""
    width, height = image.size
    short, long = min(width, height), max(width, height)
    length = int(side * long / short)
    resized = (side, length) if width <= height else (length, side)
    if resized != image.size:
        image = image.resize(resized, resample)
    left, top = (round((total - side) / 2) for total in resized)
    return image.crop((left, top, left + side, top + side))


class ProLIPTokenizer(PreTrainedTokenizerFast):
    """Cleans captions and returns rows of token ids, cut and padded to the full context, as in training.

    Settings in tokenizer_config.json: `clean`, how captions are cleaned ("none" for not at all); `pad_id`; and
    `model_max_length`, the context.
    """

    model_input_names = ("input_ids",)

    def __call__(
        self, text: str | Sequence[str], *, return_tensors: str | None = None, **_unused: Any
    ) -> BatchEncoding:
        """{"input_ids": [N, L]}; without `return_tensors`, the ids of a single caption are one list.

        Other settings have no effect: the models read rows of one length only.
        """
        captions = [text] if isinstance(text, str) else list(text)
        settings = self.init_kwargs
        if settings["clean"] != "none":
            captions = cleaner(settings["clean"])(captions)
        backend = self.backend_tokenizer
        backend.no_padding()
        backend.enable_truncation(self.model_max_length, direction=self.truncation_side)
        rows = [self._padded(encoding.ids) for encoding in backend.encode_batch(captions)]
        if isinstance(text, str) and return_tensors is None:
            return BatchEncoding({"input_ids": rows[0]})
        return BatchEncoding({"input_ids": rows}, tensor_type=return_tensors)

    def _padded(self, ids: list[int]) -> list[int]:
        padding = [self.init_kwargs["pad_id"]] * (self.model_max_length - len(ids))
        return padding + ids if self.padding_side == "left" else ids + padding

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Nothing: the vocabulary is in tokenizer.json."""
        return ()


class ProLIPProcessor(ProcessorMixin):
    """The image processor and the tokenizer of a model."""

    def __init__(self, image_processor: ProLIPImageProcessor, tokenizer: ProLIPTokenizer) -> None:
        super().__init__(image_processor, tokenizer)

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        return_tensors: str | None = None,
        **_unused: Any,
    ) -> BatchFeature:
        """What the image processor returns, for given images, and `input_ids` of given texts."""
        data: dict[str, Any] = {}
        if text is not None:
            data.update(self.tokenizer(text, return_tensors=return_tensors))
        if images is not None:
            data.update(self.image_processor(images, return_tensors=return_tensors))
        return BatchFeature(data)
