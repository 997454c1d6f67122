"""Pictures and captions of a batch with their uncertainty: the most and the least certain ones and some at random.

B samples of a batch, C caption slots, L tokens, H/W pixels.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from prolip.data.tokenizer import Tokenizer
from prolip.models import ProLIPOutput
from prolip.normalization import OPENAI_MEAN, OPENAI_STD

_SIDE, _TEXT = 128, 44


class Shown(Protocol):
    """What is shown of a batch; `prolip.data.device.DeviceBatch` is one."""

    @property
    def images(self) -> Tensor:
        """[B, 3, H, W], normalised."""

    @property
    def token_ids(self) -> Tensor:
        """[C, B, L]"""

    @property
    def keys(self) -> list[str]:
        """The samples' keys."""


class Example(NamedTuple):
    """A picture as the model saw it, with its captions."""

    why: str
    """`most certain`, `least certain` or `random`."""
    key: str
    pixels: NDArray[np.uint8]
    """[H, W, 3]"""
    uncertainty: float
    """Total variance of the picture."""
    captions: list[tuple[str, float]]
    """What the tokens of each slot say, and their total variance."""


def pick_examples(batch: Shown, output: ProLIPOutput, tokenizer: Tokenizer, count: int, step: int) -> list[Example]:
    """Up to `count` pictures of each kind; the random ones follow from the step."""
    unsure = output.image.total_var.detach().float().cpu()
    of_texts = output.text.total_var.detach().float().cpu()
    order = unsure.argsort(stable=True).tolist()
    count = min(count, len(order))
    drawn = random.Random(step).sample(order, count)
    places = [("most certain", order[:count]), ("least certain", order[::-1][:count]), ("random", drawn)]
    return [
        Example(
            why=why,
            key=batch.keys[place],
            pixels=_pixels(batch.images[place]),
            uncertainty=float(unsure[place]),
            captions=list(
                zip(tokenizer.decode(batch.token_ids[:, place].tolist()), of_texts[:, place].tolist(), strict=True)
            ),
        )
        for why, some in places
        for place in some
    ]


def write_examples(folder: Path, step: int, examples: Sequence[Example]) -> Image.Image:
    """Writes `step_N.jsonl` and `step_N.png`, and returns the picture: a row a kind."""
    folder.mkdir(parents=True, exist_ok=True)
    sheet = draw_sheet(examples)
    with (folder / f"step_{step}.jsonl").open("w", encoding="utf-8") as file:
        for one in examples:
            said = [{"text": text, "uncertainty": value} for text, value in one.captions]
            record = {"why": one.why, "key": one.key, "uncertainty": one.uncertainty, "captions": said}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    sheet.save(folder / f"step_{step}.png")
    return sheet


def draw_sheet(examples: Sequence[Example]) -> Image.Image:
    """The examples as a picture, a row a kind; under each its kind, its uncertainty and its first caption."""
    rows = [[one for one in examples if one.why == why] for why in dict.fromkeys(one.why for one in examples)]
    width = max(map(len, rows))
    sheet = Image.new("RGB", (width * (_SIDE + 8), len(rows) * (_SIDE + _TEXT)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, some in enumerate(rows):
        for column, one in enumerate(some):
            left, top = column * (_SIDE + 8), row * (_SIDE + _TEXT)
            sheet.paste(Image.fromarray(one.pixels).resize((_SIDE, _SIDE)), (left, top))
            caption = one.captions[0][0] if one.captions else one.key
            for line, text in enumerate((f"{one.why} {one.uncertainty:.4g}", caption[:22], caption[22:44])):
                draw.text((left, top + _SIDE + 1 + 13 * line), text, fill="black")
    return sheet


def _pixels(image: Tensor) -> NDArray[np.uint8]:
    channels = image.detach().float().cpu().permute(1, 2, 0).numpy()
    values = (channels * np.array(OPENAI_STD) + np.array(OPENAI_MEAN)) * 255
    return np.asarray(values.round().clip(0, 255), dtype=np.uint8)
