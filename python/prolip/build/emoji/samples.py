"""The base emoji of the shards, without variants and mirrored copies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from prolip.build.emoji.art import HELD_OUT_DESIGN
from prolip.build.emoji.captions import LEVELS
from prolip.data import StoreConfig
from prolip.data.samples import read_members
from prolip.errors import UserError, check

TITLES: dict[str, str] = {"openmoji": "OpenMoji", "goog": "Noto", "twtr": "Twemoji"}
TRAINED = f"design-{HELD_OUT_DESIGN}"
"""Trained names, untrained images."""


class EmojiSample(NamedTuple):
    """One image with its captions."""

    key: str
    png: bytes
    image_id: str
    """Equal for equal images."""
    codepoint: str
    captions: dict[str, list[str]]
    """By level, one per template, always in the same order."""

    def text(self, level: str) -> str:
        """The caption of a level in the first template: its words alone."""
        return self.captions[level][0]


def find_shards(data: Path, name: str) -> list[Path]:
    """The shards of a set of emoji."""
    found = sorted(data.glob(f"{name}-*.tar"))
    check(found, "data", f"must have {name}-*.tar, as `prolip data build emoji` writes it", data)
    return found


def read_set(data: Path, name: str) -> list[EmojiSample]:
    """The base emoji of a set."""
    samples = []
    for path in find_shards(data, name):
        for key, members in read_members(str(path), ("png", "json"), StoreConfig()):
            try:
                record = json.loads(members["json"] or b"{}")
                captions = {level: record["captions"][level] for level in LEVELS}
                sample = EmojiSample(key, members["png"] or b"", record["picture"], record["codepoint"], captions)
                is_base = not (record["skin_tone"] or record["mirrored"])
            except (KeyError, TypeError, ValueError) as error:
                raise UserError("data", "must hold emoji", f"sample {key} of {path}: {error!r}") from error
            samples += [sample] * is_base
    return samples
