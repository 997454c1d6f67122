"""Settings of `prolip bench`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Recipe = Literal["full", "plain"]


@dataclass(frozen=True, kw_only=True)
class BenchDataConfig:
    """Compare the loader with pure decoding and with baselines, on WebDataset shards."""

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


@dataclass(frozen=True, kw_only=True)
class BenchDecodeConfig:
    """Compare JPEG decoders on a folder of photographs; they take turns."""

    images: Path
    """Folder of JPEG files."""
    decoders: tuple[str, ...] = ()
    """Names, separated by commas or spaces; by default all that are installed."""
    workers: tuple[int, ...] = ()
    """Worker processes of a torch DataLoader that decodes, such as `0 2`; by default only a loop without it is
    measured."""
    repeats: int = 5
    """Rounds; each decoder has one turn per round."""
    num_images: int = 500
    """Images to time in each turn."""
    json: bool = False
    """Print one JSON object per line instead of the tables."""


@dataclass(frozen=True, kw_only=True)
class BenchTargetsConfig:
    """Measure loader and decoder with each set of vector instructions, and compare them with their targets."""

    images: Path
    """Folder of JPEG files."""
    levels: tuple[str, ...] = ()
    """Vector instructions: avx512, avx2, sse4, portable (on Arm neon, portable); by default all that this processor
    has."""
    threads: int = 2
    """Threads of the loader."""
    repeats: int = 5
    """Rounds; each contender has one turn per round."""
    num_images: int = 1024
    """Images to load in each turn of the loader."""
    gpu_images: int = 2400
    """Images per second that one GPU consumes in training: 2400 for ViT-B/16 on an H100."""
    json: bool = False
    """Print one JSON object per line instead of the table."""


def split_names(words: Sequence[str]) -> list[str]:
    """Return the distinct names in words that may hold several, separated by commas."""
    return list(dict.fromkeys(name for word in words for name in word.split(",") if name))
