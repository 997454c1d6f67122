"""Examples of a batch with their uncertainty.

B samples per batch, C caption slots, L tokens, H/W pixels.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from prolip.data.device import DeviceBatch
from prolip.data.tokenizer import Tokenizer
from prolip.images.tensors import OPENAI_MEAN, OPENAI_STD, Patches
from prolip.models import ProLIPOutput


class Example(NamedTuple):
    """An image as the model saw it, with its captions."""

    why: str
    """`most certain`, `least certain` or `random`."""
    key: str
    pixels: NDArray[np.uint8]
    """[H, W, 3]"""
    uncertainty: float
    """Total variance."""
    captions: list[tuple[str, float]]
    """Of each slot, decoded, with its total variance."""

    @property
    def label(self) -> str:
        """Kind, uncertainty and captions in one line."""
        captions = "; ".join(f"{text} ({value:.4g})" for text, value in self.captions)
        return f"{self.why} {self.uncertainty:.4g}: {captions}"


def pick_examples(
    batch: DeviceBatch, output: ProLIPOutput, tokenizer: Tokenizer, count: int, step: int
) -> list[Example]:
    """Up to `count` images of each kind; the step is the seed of the random ones."""
    image_var = output.image.total_var.detach().float().cpu()
    text_var = output.text.total_var.detach().float().cpu()
    order = image_var.argsort(stable=True).tolist()
    count = min(count, len(order))
    drawn = random.Random(step).sample(order, count)
    places = [("most certain", order[:count]), ("least certain", order[::-1][:count]), ("random", drawn)]
    examples = []
    for why, chosen in places:
        for place in chosen:
            image = image_of(batch.images, place).detach().float().cpu().permute(1, 2, 0).numpy()
            pixels = ((image * np.array(OPENAI_STD) + np.array(OPENAI_MEAN)) * 255).round().clip(0, 255)
            captions = tokenizer.decode(batch.token_ids[:, place].tolist())
            captioned = list(zip(captions, text_var[:, place].tolist(), strict=True))
            examples.append(
                Example(why, batch.keys[place], pixels.astype(np.uint8), float(image_var[place]), captioned)
            )
    return examples


def image_of(images: Tensor | Patches, place: int) -> Tensor:
    """[3, H, W]"""
    if isinstance(images, Tensor):
        return images[place]
    return images.rows(slice(place, place + 1)).images(math.isqrt(images.patches.shape[-1] // 3))[0]


def write_examples(folder: Path, step: int, examples: Sequence[Example]) -> Image.Image:
    """Write `step_N.jsonl` and `step_N.png`; returns the image, a row per kind."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"step_{step}.jsonl").open("w", encoding="utf-8") as file:
        for example in examples:
            record = {name: getattr(example, name) for name in ("why", "key", "uncertainty")}
            record["captions"] = [{"text": text, "uncertainty": value} for text, value in example.captions]
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    images, columns = [Image.fromarray(example.pixels) for example in examples], len(examples) // 3
    width, height = (max(sides) for sides in zip(*(image.size for image in images), strict=True))
    sheet = Image.new("RGB", (columns * width, 3 * height))
    for place, image in enumerate(images):
        sheet.paste(image, (place % columns * width, place // columns * height))
    sheet.save(folder / f"step_{step}.png")
    return sheet
