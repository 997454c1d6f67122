"""Settings of `prolip bench`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prolip.errors import check_at_least

Recipe = Literal["full", "plain"]
Baseline = Literal["prolip-float32", "webdataset"]


@dataclass(frozen=True, kw_only=True)
class BenchDataConfig:
    """Compare the loader with pure decoding and with baselines, on WebDataset shards."""

    shards: tuple[str, ...]
    """Paths, brace patterns, globs, or text files that list them."""
    recipe: Recipe = "full"
    """`full`: random crop, colour jitter, grey. `plain`: random crop."""
    threads: int = 2
    """Threads of the loader; worker processes of the baselines."""
    against: tuple[Baseline, ...] = ()
    """Further contenders: the loader with normalised float32 batches, and the stack of the published models."""
    repeats: int = 3
    """Rounds; each contender runs once per round."""
    num_images: int = 2048
    """Images to time in each run."""
    batch_size: int = 256
    """Samples per batch."""
    image_size: int = 224
    """Side of the images in a batch, in pixels."""
    native: tuple[int, ...] = ()
    """Sequence lengths to draw from, for images at their native aspect ratio in patches of 16 pixels: they
    are compared with square batches, and `webdataset` is open_clip's NaFlex. () for square images only."""
    token_budget: int = 16_384
    """With `native`, maximum number of patches per batch."""
    json: bool = False
    """Print one JSON object per line instead of the table."""

    def __post_init__(self) -> None:
        check_at_least(1, threads=self.threads, repeats=self.repeats, num_images=self.num_images)
        check_at_least(1, batch_size=self.batch_size, image_size=self.image_size, token_budget=self.token_budget)
        for length in self.native:
            check_at_least(1, native=length)
