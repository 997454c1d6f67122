"""Settings of `prolip bench`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Recipe = Literal["full", "plain"]


@dataclass(frozen=True, kw_only=True)
class BenchDataConfig:
    """Measures the loader on WebDataset shards, beside decoding alone and beside baselines."""

    shards: tuple[str, ...]
    """Brace patterns, globs, paths, or text files that list them."""
    recipe: Recipe = "full"
    """`full`: random crop, colour jitter, grey. `plain`: random crop."""
    threads: int = 2
    """Threads of the loader, worker processes of the baselines."""
    against: tuple[str, ...] = ()
    """Contenders beside our loader and the floor, by commas or spaces: prolip-float32, webdataset,
    hand-made, hand-made-cv2."""
    repeats: int = 3
    """Rounds; each contender runs once a round."""
    images: int = 2048
    """Pictures that are timed in each run."""
    batch_size: int = 256
    """Samples of a batch."""
    json: bool = False
    """One JSON object a line instead of the table."""
