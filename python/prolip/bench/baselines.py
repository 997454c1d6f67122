"""The baselines of the loader: endless streams of float32 batches from DataLoader workers.

Each reads `.jpg` (or `.png`, `.webp`) and `.txt` members and yields what a CLIP training loop needs: normalised images
[B, 3, H, W] and token ids [B, L] of open_clip's tokenizer.

Shapes: B samples per batch, H/W pixels, L tokens.
"""

from __future__ import annotations

import math
import random
import tarfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from torchvision import transforms
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

from prolip.bench.task import Task
from prolip.data import OPENAI_MEAN, OPENAI_STD, AugmentConfig

Batches = Iterator[tuple[Tensor, Tensor]]
AUGMENT = AugmentConfig()
IMAGE_MEMBERS = ("jpg", "jpeg", "png", "webp")


def webdataset_batches(task: Task) -> Batches:
    """The stack that the published models were trained with: webdataset, PIL, torchvision's transforms of PIL images.

    Shards are drawn with replacement. Samples are shuffled in a buffer of 5,000 that yields from 1,000 samples on.
    """
    import webdataset

    steps: list[Any] = [
        transforms.RandomResizedCrop(
            task.image_size, AUGMENT.crop_scale, AUGMENT.crop_ratio, interpolation=InterpolationMode.BICUBIC
        )
    ]
    if task.recipe == "full":
        jitter = transforms.ColorJitter(*AUGMENT.jitter)
        steps += [
            transforms.RandomApply([jitter], p=AUGMENT.jitter_prob),
            transforms.RandomGrayscale(p=AUGMENT.gray_prob),
        ]
    transform = transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(OPENAI_MEAN, OPENAI_STD)])
    tokenize = open_clip.tokenizer.SimpleTokenizer(context_length=task.context_length)
    dataset = webdataset.DataPipeline(
        webdataset.ResampledShards(list(task.shards)),
        webdataset.tarfile_to_samples(),
        webdataset.shuffle(5000, initial=1000),
        webdataset.decode("pilrgb"),
        webdataset.rename(image=";".join(IMAGE_MEMBERS), text="txt"),
        webdataset.map_dict(image=transform, text=lambda text: tokenize(text)[0]),
        webdataset.to_tuple("image", "text"),
        webdataset.batched(task.batch_size, partial=False),
    )
    loader = webdataset.WebLoader(
        dataset, batch_size=None, shuffle=False, num_workers=task.threads, persistent_workers=True
    )
    yield from loader


def hand_made_batches(task: Task) -> Batches:
    """What a careful user writes with torchvision alone: decode_jpeg and uint8 transforms. Pixels differ from PIL's.

    Only JPEG is decoded. Crops are resized by torchvision's SIMD kernel, with antialiasing.
    """
    steps: list[Any] = [
        v2.RandomResizedCrop(
            task.image_size,
            AUGMENT.crop_scale,
            AUGMENT.crop_ratio,
            interpolation=InterpolationMode.BICUBIC,
            antialias=True,
        )
    ]
    if task.recipe == "full":
        steps += [
            v2.RandomApply([v2.ColorJitter(*AUGMENT.jitter)], p=AUGMENT.jitter_prob),
            v2.RandomGrayscale(p=AUGMENT.gray_prob),
        ]
    augment = v2.Compose(steps)

    def load(data: bytes) -> Tensor:
        pixels: Tensor = augment(decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB))
        return pixels

    return _hand_made(task, load)


def hand_made_cv2_batches(task: Task) -> Batches:
    """The fastest hand-made pipeline that we know: simplejpeg, torchvision's resize, colours by OpenCV's tables.

    Only JPEG is decoded. Pixels differ from PIL's, in the resize and in the colours.
    """
    import cv2
    import simplejpeg

    from prolip.bench.cv2_colours import augment

    cv2.setNumThreads(0)
    draws = random.Random(0)
    size = [task.image_size, task.image_size]

    def load(data: bytes) -> Tensor:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB")
        x, y, width, height = _draw_crop(pixels.shape[1], pixels.shape[0], draws)
        crop: Tensor = torch.from_numpy(pixels[y : y + height, x : x + width]).permute(2, 0, 1)
        crop = functional.resize(crop, size, InterpolationMode.BICUBIC, antialias=True)
        if task.recipe == "plain":
            return crop
        packed = augment(crop.permute(1, 2, 0).contiguous().numpy(), AUGMENT, draws)
        return torch.from_numpy(packed).permute(2, 0, 1)

    return _hand_made(task, load)


class _Stream(IterableDataset[tuple[Tensor, Tensor]]):
    """The batches of one worker: shards in an order of its own, each image normalised into the batch."""

    def __init__(self, task: Task, load: Callable[[bytes], Tensor]):
        self.task, self.load = task, load
        self.tokenize = open_clip.tokenizer.SimpleTokenizer(context_length=task.context_length)
        std = torch.tensor(OPENAI_STD).view(3, 1, 1)
        self.scale = 1 / (255 * std)
        self.offset = -torch.tensor(OPENAI_MEAN).view(3, 1, 1) / std

    def __iter__(self) -> Batches:
        worker = get_worker_info()
        order = random.Random(worker.id if worker else 0)
        task, samples = self.task, self._samples(order)
        while True:
            images = torch.empty(task.batch_size, 3, task.image_size, task.image_size)
            texts = []
            for image in images:
                data, text = next(samples)
                torch.addcmul(self.offset, self.load(data).float(), self.scale, out=image)
                texts.append(self.tokenize(text)[0])
            yield images, torch.stack(texts)

    def _samples(self, order: random.Random) -> Iterator[tuple[bytes, str]]:
        while True:
            for shard in order.sample(self.task.shards, len(self.task.shards)):
                found: dict[str, dict[str, bytes]] = {}
                with tarfile.open(shard) as archive:
                    for member in archive:
                        if member.isfile() and (file := archive.extractfile(member)):
                            key, _, extension = member.name.partition(".")
                            found.setdefault(key, {})[extension] = file.read()
                for members in found.values():
                    image = next((members[kind] for kind in ("jpg", "jpeg") if kind in members), None)
                    if image is not None and "txt" in members:
                        yield image, members["txt"].decode()


def _hand_made(task: Task, load: Callable[[bytes], Tensor]) -> Batches:
    stream = _Stream(task, load)
    loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(stream, batch_size=None, num_workers=task.threads)
    yield from loader


def _draw_crop(width: int, height: int, draws: random.Random) -> tuple[int, int, int, int]:
    """Draw a crop as RandomResizedCrop does: x, y, width, height; the whole image after ten crops that don't fit."""
    low, high = (math.log(ratio) for ratio in AUGMENT.crop_ratio)
    for _ in range(10):
        area = width * height * draws.uniform(*AUGMENT.crop_scale)
        ratio = math.exp(draws.uniform(low, high))
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < across <= width and 0 < down <= height:
            return draws.randint(0, width - across), draws.randint(0, height - down), across, down
    return 0, 0, width, height
