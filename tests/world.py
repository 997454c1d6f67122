"""One small world that tests read and none changes: a trained run and what the commands make of it.

It is made once for all workers of a session, by the commands themselves.
"""

import fcntl
import os
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from prolip.cli import main
from tests.support.class_folders import write_class_folders
from tests.support.small_training import RECIPE, write_shard, write_tokenizer

CLASSES = ("red", "green", "blue")


class World(NamedTuple):
    """Its parts, each a path."""

    folder: Path
    shards: Path
    """64 images of a coloured half, with `captions.name` ("red left") and `captions.group` ("red") in json."""
    tokenizer: Path
    recipe: Path
    run: Path
    """24 steps of the recipe."""
    images: Path
    """Class folders, 40 images each."""
    elsewhere: Path
    """Six images of no class."""
    calibration: Path
    embeddings: Path
    """Of the images and names in the shards."""


def world_in(folder):
    names = (
        "train.tar",
        "tokenizer.json",
        "recipe.toml",
        "run",
        "images",
        "elsewhere",
        "calibration.json",
        "embeddings",
    )
    return World(folder, *(folder / name for name in names))


def make_world(world):
    write_shard(world.shards)
    write_tokenizer(world.tokenizer)
    world.recipe.write_text(RECIPE.format(folder=world.folder))
    write_class_folders(world.images, labels=CLASSES)
    world.elsewhere.mkdir()
    for number in range(6):
        Image.new("L", (24, 24), 40 * number).save(world.elsewhere / f"{number}.png")
    model = f"--checkpoint {world.run} --device cpu"
    for command in (
        f"train {world.recipe} --samples_seen 384 --out {world.run}",
        f"calibrate {model} --data {world.images} --num_resamples 10 --out {world.calibration}",
        f"embed {model} --shards {world.shards} --what both --caption_key captions.name --out {world.embeddings}",
    ):
        assert main(command.split()) == 0, command


def once(folder, make):
    """Has one of the workers make a folder; the others wait until it is whole."""
    with Path(f"{folder}.lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.fstat(lock.fileno()).st_size:  # another may have waited with the file open
            folder.mkdir()
            make(folder)
            lock.write("made")


@contextmanager
def unchanged(folder):
    """Fails a test that writes into the folder; a mode would not stop root."""
    before = files(folder)
    yield
    assert files(folder) == before


def files(folder):
    return {path: os.stat(path).st_mtime_ns for path in map(str, sorted(folder.rglob("*")))}
