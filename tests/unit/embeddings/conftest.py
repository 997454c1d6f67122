"""Fixtures of the tests of embeddings."""

import pytest
from PIL import Image
from tests.support.embed_options import options
from tests.support.ranked_shards import SIZES, shards
from tests.support.shards import encoded, write_tar
from tests.support.untrained_run import write_run

from prolip.embeddings.embed import run_embed

WORDS = ["food", "travel", "nature", "emoji", "picture", "animals"]


@pytest.fixture(scope="package")
def lab(tmp_path_factory):
    """A run; three shards with the same keys in two folders, embedded; a folder with a damaged image; lines."""
    folder = tmp_path_factory.mktemp("lab")
    write_run(folder / "run", folder / "tokenizer.json", context_length=8)
    for shard, (path, size) in enumerate(zip(shards(folder), SIZES, strict=True)):
        members = [("__about__/note.txt", b"a note"), ("README", b"of no sample")]
        for number in range(size):
            members += [
                (f"k{number}.png", encoded((shard * 90, number * 40, 99))),
                (f"k{number}.txt", f"a {WORDS[number]} of {WORDS[shard]}".encode()),
                (f"k{number}.json", f'{{"path": "{number}.jpg", "texts": {{"all": ["{WORDS[number]}"]}}}}'.encode()),
            ]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tar(path, members)
    images = folder / "images" / "some.where"
    images.mkdir(parents=True)
    for number in range(4):
        (images / f"a.{number}.png").write_bytes(encoded((number * 50, 9, 9)) if number != 2 else b"damaged")
        (images / f"a.{number}.txt").write_text(WORDS[number])
    Image.new("RGB", (30, 20), "red").save(images / "red.tif")
    (images / "red.txt").write_text("a picture")
    (folder / "lines.txt").write_text("a picture of food\n\nan emoji\n")
    run_embed(options(folder, folder / "out", what="both"))
    return folder
