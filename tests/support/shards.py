"""Small shards and configurations for the tests of the loader."""

import dataclasses
import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tests.support.images import encode

from prolip.data import AugmentConfig, BatchLoader, CaptionConfig, CaptionSource, LoaderConfig, MaskConfig
from prolip.data.config import TokenizerConfig

TOKENIZER = TokenizerConfig(context_length=12)


def encoded(colour: tuple[int, int, int], size: tuple[int, int] = (14, 11), kind: str = "png") -> bytes:
    return encode(Image.new("RGB", size, colour), kind)


def write_tar(path: Path, members: Iterable[tuple[str, bytes]], form: int = tarfile.DEFAULT_FORMAT) -> None:
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def read_tar(path: Path) -> list[tuple[str, bytes]]:
    with tarfile.open(path) as archive:
        return [(member.name, archive.extractfile(member).read()) for member in archive]


def read_samples(path: Path) -> dict[str, dict[str, bytes]]:
    """The members of each sample by extension."""
    samples = {}
    for name, data in read_tar(path):
        key, _, extension = name.partition(".")
        samples.setdefault(key, {})[extension] = data
    return samples


def members(key: str, colour: tuple[int, int, int]) -> list[tuple[str, bytes]]:
    levels = {"levels": {"name": f"name {key}", "group": ["animals", "plants"]}}
    return [
        (f"{key}.png", encoded(colour)),
        (f"{key}.txt", f"picture {key}\n".encode()),
        (f"{key}.json", json.dumps(levels).encode()),
    ]


def write_two_shards(folder: Path) -> str:
    """16 samples in two shards; their pattern."""
    for shard, size in enumerate((7, 9)):
        names = [(f"s{shard}k{index}", (shard * 50, index * 20, 9)) for index in range(size)]
        write_tar(folder / f"{shard:03}.tar", [entry for name, colour in names for entry in members(name, colour)])
    return str(folder / "{000..001}.tar")


def config(pattern: str, /, **changes: Any) -> LoaderConfig:
    base = LoaderConfig(shards=(pattern,), batch_size=4, image_size=8, tokenizer=TOKENIZER, shuffle_window=5)
    return dataclasses.replace(base, **changes)


def keys(config: LoaderConfig) -> list[list[str]]:
    """The keys of all batches. A process that is spawned can import this function."""
    with BatchLoader(config) as loader:
        return [batch.keys for batch in loader]


def contents(loader: BatchLoader) -> list[tuple[Any, ...]]:
    """Batches as values that compare."""

    def value(item: Any) -> Any:
        return item.tolist() if isinstance(item, np.ndarray) else item

    return [tuple(value(item) for item in batch) for batch in loader]


FULL = {
    "augment": AugmentConfig(),
    "captions": (
        CaptionConfig(sources=(CaptionSource(general=("levels.group",)),)),
        CaptionConfig(sources=(CaptionSource(key="levels.name", weight=2), CaptionSource(key="levels.group"))),
    ),
    "mask": MaskConfig(masked_fraction=0.5, num_patches=16, mask_id=49_408, general_prob=0.5, patch_draw="sample"),
    "num_epochs": 2,
    "keep_members": ("json",),
}
