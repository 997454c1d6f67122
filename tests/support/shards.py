"""Small shards and configurations for the tests of the loader."""

import dataclasses
import io
import json
import tarfile

import numpy as np
from PIL import Image
from tests.support.images import encode

from prolip.data import AugmentConfig, BatchLoader, CaptionConfig, CaptionSource, LoaderConfig, MaskConfig
from prolip.data.config import TokenizerConfig

TOKENIZER = TokenizerConfig(context_length=12)


def encoded(colour, size=(14, 11), kind="png"):
    return encode(Image.new("RGB", size, colour), kind)


def write_tar(path, members, form=tarfile.DEFAULT_FORMAT):
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def read_tar(path):
    with tarfile.open(path) as archive:
        return [(member.name, archive.extractfile(member).read()) for member in archive]


def read_samples(path):
    """The members of each sample by extension."""
    samples = {}
    for name, data in read_tar(path):
        key, _, extension = name.partition(".")
        samples.setdefault(key, {})[extension] = data
    return samples


def members(key, colour):
    levels = {"levels": {"name": f"name {key}", "group": ["animals", "plants"]}}
    return [
        (f"{key}.png", encoded(colour)),
        (f"{key}.txt", f"picture {key}\n".encode()),
        (f"{key}.json", json.dumps(levels).encode()),
    ]


def write_two_shards(folder):
    """16 samples in two shards; their pattern."""
    for shard, size in enumerate((7, 9)):
        names = [(f"s{shard}k{index}", (shard * 50, index * 20, 9)) for index in range(size)]
        write_tar(folder / f"{shard:03}.tar", [entry for name, colour in names for entry in members(name, colour)])
    return str(folder / "{000..001}.tar")


def config(pattern, /, **changes):
    base = LoaderConfig(shards=(pattern,), batch_size=4, image_size=8, tokenizer=TOKENIZER, shuffle_window=5)
    return dataclasses.replace(base, **changes)


def keys(config):
    """The keys of all batches. A process that is spawned can import this function."""
    with BatchLoader(config) as loader:
        return [batch.keys for batch in loader]


def contents(loader):
    """Batches as values that compare."""

    def value(item):
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
