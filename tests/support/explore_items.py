"""Shards for the page of `prolip explore`."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.shards import encoded, write_tar


def write_items(folder: Path) -> None:
    """A test and a training shard with the same keys, and a sample without a picture."""
    for name, colours in (("test-000.tar", range(12)), ("train-000.tar", range(3))):
        samples = [("100.txt", b"no picture")]
        for number in colours:
            record = {"captions": {"name": [f"a {number}"], "group": ["an animal", "unused"]}, "number": number}
            samples += [
                (f"{number:03}.png", encoded((number * 20, 40, 200 - number * 9))),
                (f"{number:03}.json", json.dumps(record).encode()),
            ]
        write_tar(folder / name, samples)
