"""Examples of a batch with their uncertainty: the most certain images, the least certain ones, and random ones.

B samples per batch, C caption slots, L tokens, H/W pixels.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from prolip.data.device import DeviceBatch
from prolip.data.tokenizer import Tokenizer
from prolip.models import ProLIPOutput
from prolip.normalization import OPENAI_MEAN, OPENAI_STD

_SIDE, _TEXT = 128, 44


class Example(NamedTuple):
    """An image as the model saw it, with its captions."""

    why: str
    """`most certain`, `least certain` or `random`."""
    key: str
    pixels: NDArray[np.uint8]
    """[H, W, 3]"""
    uncertainty: float
    """Total variance of the image."""
    captions: list[tuple[str, float]]
    """The decoded caption of each slot, and its total variance."""


def pick_examples(
    batch: DeviceBatch, output: ProLIPOutput, tokenizer: Tokenizer, count: int, step: int
) -> list[Example]:
    """Pick up to `count` images of each kind. The random ones are drawn with the step as seed."""
    image_var = output.image.total_var.detach().float().cpu()
    text_var = output.text.total_var.detach().float().cpu()
    order = image_var.argsort(stable=True).tolist()
    count = min(count, len(order))
    drawn = random.Random(step).sample(order, count)
    places = [("most certain", order[:count]), ("least certain", order[::-1][:count]), ("random", drawn)]
    return [
        Example(
            why=why,
            key=batch.keys[place],
            pixels=_pixels(batch.images[place]),
            uncertainty=float(image_var[place]),
            captions=list(
                zip(tokenizer.decode(batch.token_ids[:, place].tolist()), text_var[:, place].tolist(), strict=True)
            ),
        )
        for why, chosen in places
        for place in chosen
    ]


def write_examples(folder: Path, step: int, examples: Sequence[Example]) -> Image.Image:
    """Write `step_N.jsonl` and `step_N.png`, and return the image: one row per kind."""
    folder.mkdir(parents=True, exist_ok=True)
    sheet = draw_sheet(examples)
    with (folder / f"step_{step}.jsonl").open("w", encoding="utf-8") as file:
        for example in examples:
            captions = [{"text": text, "uncertainty": value} for text, value in example.captions]
            record = {
                "why": example.why,
                "key": example.key,
                "uncertainty": example.uncertainty,
                "captions": captions,
            }
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    sheet.save(folder / f"step_{step}.png")
    return sheet


def draw_sheet(examples: Sequence[Example]) -> Image.Image:
    """Draw the examples, one row per kind, with kind, uncertainty and first caption below each."""
    kinds = dict.fromkeys(example.why for example in examples)
    rows = [[example for example in examples if example.why == why] for why in kinds]
    width = max(map(len, rows))
    sheet = Image.new("RGB", (width * (_SIDE + 8), len(rows) * (_SIDE + _TEXT)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, row_examples in enumerate(rows):
        for column, example in enumerate(row_examples):
            left, top = column * (_SIDE + 8), row * (_SIDE + _TEXT)
            sheet.paste(Image.fromarray(example.pixels).resize((_SIDE, _SIDE)), (left, top))
            caption = example.captions[0][0] if example.captions else example.key
            for line, text in enumerate((f"{example.why} {example.uncertainty:.4g}", caption[:22], caption[22:44])):
                draw.text((left, top + _SIDE + 1 + 13 * line), text, fill="black")
    return sheet


def _pixels(image: Tensor) -> NDArray[np.uint8]:
    channels = image.detach().float().cpu().permute(1, 2, 0).numpy()
    values = (channels * np.array(OPENAI_STD) + np.array(OPENAI_MEAN)) * 255
    return np.asarray(values.round().clip(0, 255), dtype=np.uint8)
