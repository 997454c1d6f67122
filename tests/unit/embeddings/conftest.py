"""Fixtures of the tests of embeddings."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.ranked_shards import SIZES, shards
from tests.support.shards import encoded, write_tar
from tests.support.untrained_run import write_run

from prolip.cli import main


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards with the same keys in two folders, embedded: images and captions."""
    folder = tmp_path_factory.mktemp("lab")
    write_run(folder / "run", folder / "tokenizer.json", context_length=8)
    words = ["food", "travel", "nature", "emoji", "picture", "animals"]
    for shard, size in enumerate(SIZES):
        members = [("__about__/note.txt", b"a note"), ("README", b"of no sample")]
        for number in range(size):
            members += [
                (f"k{number}.png", encoded((shard * 90, number * 40, 99))),
                (f"k{number}.txt", f"a {words[number]} of {words[shard]}".encode()),
                (f"k{number}.cls", bytes([number])),
            ]
        (folder / "data" / "ab"[shard % 2]).mkdir(parents=True, exist_ok=True)
        write_tar(folder / "data" / "ab"[shard % 2] / f"{shard}.tar", members)
    run = ["embed", "--checkpoint", str(folder / "run"), "--device", "cpu", "--what", "both"]
    assert main([*run, "--out", str(folder / "out"), "--shards", *map(str, shards(folder))]) == 0
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, three shards of 5, 4 and 3 samples with captions, a folder of images, one of them damaged."""
    folder = tmp_path_factory.mktemp("source")
    write_run(folder / "run", folder / "tokenizer.json", context_length=8)
    for shard, size in enumerate((5, 4, 3)):
        members = []
        for number in range(size):
            key = f"k{number}"  # the same keys in every shard
            members += [
                (f"{key}.png", encoded((shard * 90, number * 40, 99))),
                (f"{key}.txt", f"a picture of {'food' if number % 2 else 'travel'}".encode()),
            ]
        write_tar(folder / f"shard{shard}.tar", members)
    images = folder / "images" / "some.where"
    images.mkdir(parents=True)
    for number in range(5):
        (images / f"a.{number}.png").write_bytes(encoded((number * 50, 9, 9)))
        (images / f"a.{number}.txt").write_text("a picture")
    (images / "a.3.png").write_bytes(b"damaged")
    (folder / "lines.txt").write_text("a picture of food\n\nan emoji\n")
    return folder
