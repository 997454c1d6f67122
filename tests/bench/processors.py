"""`fast_processor` beside the fast and the slow processors of transformers, from the bytes of photographs to tensors.

    python -m tests.bench.processors --images DIR

All sides run on one core, in turn. A rate is images per second of CPU time; a ratio is the median over the rounds, with
the lowest and the highest in brackets. The fast processor gets what torchvision or Pillow decoded. The share of
differing values is that beside the slow processor: values that are not equal but for the rounding of float32.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tests.bench.targets import Turn, row
from torchvision.io import ImageReadMode, decode_image
from transformers import (
    BitImageProcessor,
    CLIPImageProcessor,
    Siglip2ImageProcessor,
    SiglipImageProcessor,
    ViTImageProcessor,
)
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from prolip.interop.transformers import fast_processor
from prolip.report.text_table import align

DINO = {"size": {"shortest_edge": 256}, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
PROCESSORS = {
    "CLIP": (CLIPImageProcessor, CLIPImageProcessorPil, {}),
    "SigLIP": (SiglipImageProcessor, SiglipImageProcessorPil, {}),
    "SigLIP 2": (Siglip2ImageProcessor, Siglip2ImageProcessorPil, {}),
    "ViT": (ViTImageProcessor, ViTImageProcessorPil, {}),
    "DINOv2": (BitImageProcessor, BitImageProcessorPil, DINO),
}
OURS, TORCHVISION, PILLOW, SLOW = "ours", "fast, torchvision decodes", "fast, Pillow decodes", "slow"
TARGETS = {"one by one": 2.5, "lists": 3.0}
"""Rate over that of the fast processor with either decoder."""
Side = Callable[[Sequence[bytes]], np.ndarray]


def sides_of(fast, slow, settings):
    """What turns the bytes of images into values, in four ways."""

    def values(processor, read, data):
        return processor([read(one) for one in data], return_tensors="pt")["pixel_values"].numpy()

    def read(data):
        return decode_image(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)

    def opened(data):
        return Image.open(BytesIO(data)).convert("RGB")

    settings = {**settings, "do_convert_rgb": True}  # some photographs are grey
    given = fast(**settings)
    return {
        OURS: partial(values, fast_processor(given), bytes),
        TORCHVISION: partial(values, given, read),
        PILLOW: partial(values, given, opened),
        SLOW: partial(values, slow(**settings), opened),
    }


def turn(side, data, length):
    """One side in one round, with lists of some length."""
    clock = time.process_time()
    for start in range(0, len(data), length):
        side(data[start : start + length])
    cpu_s = (time.process_time() - clock) / len(data)
    return Turn(1 / cpu_s, cpu_s * 1e6)


def measure(name, data, options):
    """Rows of a processor, one image at a time and as lists."""
    sides, rows = sides_of(*PROCESSORS[name]), []
    exact = sides[SLOW](data)
    differ = {which: np.mean(np.abs(side(data) - exact) > 1e-5) for which, side in sides.items()}
    for how, length in zip(TARGETS, (1, options.list_length), strict=True):
        turns = {which: [] for which in sides}
        for _ in range(options.repeats):
            for which, side in sides.items():
                turns[which].append(turn(side, data, length))
        for which in (TORCHVISION, PILLOW, SLOW):
            target = None if which == SLOW else TARGETS[how]
            cells = row(f"{name}, {how}", turns[OURS], which, turns[which], target)
            rows.append([*cells[:4], *cells[5:-1], f"{differ[OURS]:.3%}", f"{differ[which]:.3%}"])
    return rows


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of photographs")
    for name, default in (("repeats", 5), ("num_images", 192), ("list_length", 32)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args(words)
    data = [path.read_bytes() for path in sorted(options.images.iterdir())[: options.num_images]]
    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
        torch.set_num_threads(1)
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        rows = [cells for name in PROCESSORS for cells in measure(name, data, options)]
    heads = ["", "images/CPU s", "against", "ratio", "target", "", "ours differ", "theirs"]
    print("\n".join(align([heads, *rows])))


if __name__ == "__main__":
    main()
