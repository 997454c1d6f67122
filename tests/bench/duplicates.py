"""How well near-duplicates are found: by a model's means, and by a perceptual hash (pHash, 64 bits) beside it.

    python -m tests.bench.duplicates --checkpoint runs/demo --images DIR

Every image gets altered copies. Recall is the share of (image, copy) that are similar enough, precision the share of
one origin among all similar pairs of images and copies, and `more certain` how often the image is more certain than its
copy.
"""

import argparse
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import imagehash
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageOps

from prolip.inference import load
from prolip.report.text_table import align

COSINES, DISTANCES = (0.80, 0.85, 0.90, 0.95, 0.97, 0.98, 0.99), (0, 4, 8, 12)


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    image.save(buffer := BytesIO(), "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def labelled(image: Image.Image) -> Image.Image:
    ImageDraw.Draw(copy := image.copy()).text(
        (4, image.height * 7 // 8), "example", "red", font_size=image.height // 10
    )
    return copy


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG 95": lambda image: jpeg(image, 95),
    "JPEG 50": lambda image: jpeg(image, 50),
    "JPEG 30": lambda image: jpeg(image, 30),
    "1/2": lambda image: image.reduce(2),
    "1/4": lambda image: image.reduce(4),
    "crop 90 %": lambda image: ImageOps.crop(image, min(image.size) // 20),
    "crop 75 %": lambda image: ImageOps.crop(image, min(image.size) // 8),
    "mirrored": ImageOps.mirror,
    "text": labelled,
    "border": lambda image: ImageOps.expand(image, min(image.size) // 20, "black"),
}


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--images", type=Path, required=True, help="folder of images")
    options = parser.parse_args(words)
    images = [Image.open(path).convert("RGB") for path in sorted(options.images.iterdir())]
    every = [made for image in images for made in (image, *(change(image) for change in CHANGES.values()))]
    found = load(options.checkpoint, device="cpu").encode_images(every, progress=False)
    bits = torch.tensor(np.stack([imagehash.phash(image).hash.ravel() for image in every])).float()
    distance = bits @ (1 - bits).T + (1 - bits) @ bits.T
    own = torch.block_diag(*torch.ones(len(images), 1 + len(CHANGES), 1 + len(CHANGES))).bool()
    rows = [["", *CHANGES, "all", "precision"]]
    for name, similar in (
        *((f"cosine {limit:.2f}", found.mean @ found.mean.T >= limit) for limit in COSINES),
        *((f"pHash {limit}", distance <= limit) for limit in DISTANCES),
        ("more certain", found.total_var[:, None] < found.total_var),
    ):
        copies = similar[own].view(len(images), 1 + len(CHANGES), -1)[:, 0, 1:].float().mean(0)
        # Without those of an image with itself.
        precision = (similar[own].sum() - len(every)) / (similar.sum() - len(every))
        rows.append([name, *(f"{share:.1%}" for share in (*copies, copies.mean(), precision))])
    rows[-1][-1] = "-"
    print(f"{len(images):,} images", *align(rows), sep="\n")


if __name__ == "__main__":
    main()
