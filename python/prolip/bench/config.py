"""Settings of `prolip bench`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Recipe = Literal["full", "plain"]


@dataclass(frozen=True, kw_only=True)
class BenchDataConfig:
    """Measure the loader on WebDataset shards, beside pure decoding and beside baselines."""

    shards: tuple[str, ...]
    """Paths, brace patterns, globs, or text files that list them."""
    recipe: Recipe = "full"
    """`full`: random crop, colour jitter, grey. `plain`: random crop."""
    threads: int = 2
    """Threads of the loader; worker processes of the baselines."""
    against: tuple[str, ...] = ()
    """Further contenders, separated by commas or spaces: prolip-float32, webdataset, hand-made, hand-made-cv2."""
    repeats: int = 3
    """Rounds; each contender runs once per round."""
    num_images: int = 2048
    """Images to time in each run."""
    batch_size: int = 256
    """Samples per batch."""
    image_size: int = 224
    """Side of the images in a batch, in pixels."""
    json: bool = False
    """Print one JSON object per line instead of the table."""
